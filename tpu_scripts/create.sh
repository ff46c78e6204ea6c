#!/usr/bin/env bash
# Request the TPU slice of settings.env and wait until it is there.
#
#   create.sh [--no-wait] [--dry-run] [--settings FILE]
#
# The request is a queued resource: it stays in Google's queue until there is capacity, which on
# spot can take minutes or days. Interrupting this script leaves the request in the queue; run it
# again to go on waiting.
#
#   --no-wait        return as soon as the request is in the queue
#   --dry-run        print the commands instead of running them
#   --settings FILE  another settings file than settings.env beside this script
#
# Next: setup.sh. Costs begin when the state becomes ACTIVE and end with delete.sh.

# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

parse_common "$@"
WAIT=1
for argument in "${REST[@]}"; do
  case $argument in
    --no-wait) WAIT= ;;
    *) unknown_flag "$argument" ;;
  esac
done
read_settings
need_gcloud

request() {
  local flags=("${HARDWARE[@]}" --runtime-version="$RUNTIME_VERSION")
  if ((SLICES == 1)); then
    flags+=(--node-id="$NAME")
  else
    flags+=(--node-count="$SLICES" --node-prefix="$NAME")
  fi
  case $CAPACITY in
    spot) flags+=(--spot) ;;
    reserved) flags+=(--reserved) ;;
  esac
  [[ -z $VALID_UNTIL ]] || flags+=(--valid-until-duration="$VALID_UNTIL")
  [[ -z $SERVICE_ACCOUNT ]] || flags+=(--service-account="$SERVICE_ACCOUNT")
  [[ -z $NETWORK ]] || flags+=(--network="$NETWORK")
  [[ -z $SUBNETWORK ]] || flags+=(--subnetwork="$SUBNETWORK")
  [[ $SSH_VIA == external ]] || flags+=(--internal-ips)
  queued_resources create "$NAME" "${flags[@]}"
}

STATE=NONE
if [[ -z $DRY_RUN ]]; then
  request_state || fail "gcloud could not be asked for $NAME; its message is above."
fi
if [[ $STATE == NONE ]]; then
  say "requesting $NAME: ${TOPOLOGY:-$ACCELERATOR_TYPE} x $SLICES, $CAPACITY, in $ZONE"
  request || fail "the request for $NAME was refused; gcloud's message is above."
elif is_lost "$STATE"; then
  fail "$NAME exists and is $STATE; delete.sh removes it, train.sh --watch makes it anew."
else
  say "$NAME exists already and is $STATE"
fi
[[ -n $WAIT ]] || exit 0

say "waiting for $NAME to become ACTIVE, asking every $POLL_SECONDS s; Ctrl-C leaves it in the queue"
if [[ -n $DRY_RUN ]]; then
  queued_resources describe "$NAME" --format='value(state.state)'
  exit 0
fi
before=
misses=0
while :; do
  if request_state; then
    misses=0
  elif ((++misses > 10)); then
    fail "gcloud failed $misses times in a row; $NAME stays in the queue."
  else
    STATE=UNKNOWN
  fi
  if [[ $STATE != "$before" ]]; then say "$NAME: $STATE"; fi
  before=$STATE
  case $STATE in
    ACTIVE) exit 0 ;;
    NONE | DELETING) fail "$NAME was deleted while it was waited for." ;;
  esac
  if is_lost "$STATE"; then
    queued_resources describe "$NAME" >&2 || true
    fail "$NAME is $STATE; the reason is above. delete.sh removes it."
  fi
  sleep "$POLL_SECONDS"
done
