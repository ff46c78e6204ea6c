#!/usr/bin/env bash
# Show the request, the slices, and what training does on every worker.
#
#   status.sh [--dry-run] [--settings FILE]
#
# For each worker: idle (nothing started), running, finished, unsent (finished, but the bucket lacks
# the results: fetch.sh), stopped (by train.sh --stop), interrupted (by somebody else),
# exited-STATUS, died, busy (another run), and its last line.
#
#   --dry-run        print the commands instead of running them
#   --settings FILE  another settings file than settings.env beside this script

# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

parse_common "$@"
((${#REST[@]} == 0)) || unknown_flag "${REST[0]}"
read_settings
need_gcloud

show_nodes() {
  local node
  for node in $(nodes); do
    run gcloud compute tpus tpu-vm describe "$node" --project="$PROJECT" --zone="$ZONE" \
      --format='value(name.basename(),acceleratorType,state,health)' --quiet
  done
}

if [[ -n $DRY_RUN ]]; then
  queued_resources describe "$NAME" --format='value(state.state)'
  show_nodes
  worker_script status "$RUN"
  exit 0
fi
request_state || fail "gcloud could not be asked for $NAME; its message is above."
say "request $NAME in $ZONE of $PROJECT: $STATE"
[[ $STATE == ACTIVE ]] || exit 0
show_nodes || fail "the slice can't be described; gcloud's message is above."
for node in $(nodes); do
  ((SLICES == 1)) || say "$node:"
  ask on_workers "$node" all bash "$REMOTE/worker.sh" status "$RUN" || {
    printf '%s\n' "$ANSWER" "$ASK_ERROR" >&2
    fail "not every worker answered; the messages are above. Before setup.sh none can."
  }
  sort -k 2 -n <<<"$ANSWER"
done
