# What the scripts beside this file share: flags, settings, dry runs, gcloud. Sourced, not run.
#
# Exit status of every script: 0 done, 2 bad input (flags, settings), 1 everything else.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153  # the scripts that source this read them; read_settings sets them
set -euo pipefail

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  echo "error: bash $BASH_VERSION is too old; 4.4 or newer is needed (macOS: brew install bash)." >&2
  exit 2
fi

SCRIPTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPOSITORY=$(dirname "$SCRIPTS")
REMOTE=alphamed_jax # the folder below the home folder of every worker
SETTINGS=$SCRIPTS/settings.env
DRY_RUN=
REST=()

# -- messages ------------------------------------------------------------------------------------

# What the script says of its progress; in a dry run a comment, so that the output stays a script.
say() { printf '%s%s\n' "${DRY_RUN:+# }" "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
bad_input() { printf 'error: %s\n' "$*" >&2 && exit 2; }
fail() { printf 'error: %s\n' "$*" >&2 && exit 1; }

# The help of a script is the comment at its top.
show_help() { sed -n '2,/^$/{s/^# \{0,1\}//p;}' "$0"; }

# -- flags ---------------------------------------------------------------------------------------

# Takes out the flags that all scripts have; what is left goes to REST. Nothing after -- is touched.
parse_common() {
  while (($#)); do
    case $1 in
      -h | --help) show_help && exit 0 ;;
      --dry-run) DRY_RUN=1 ;;
      --settings)
        (($# > 1)) || bad_input "--settings needs a file."
        SETTINGS=$2 && shift
        ;;
      --settings=*) SETTINGS=${1#*=} ;;
      --) REST+=("$@") && return ;;
      *) REST+=("$1") ;;
    esac
    shift
  done
}

unknown_flag() { bad_input "unknown argument '$1'; $(basename "$0") --help lists what there is."; }

# The flags with which a script hands its own settings on to another one.
handed_on() {
  printf '%s\0' --settings "$SETTINGS"
  [[ -z $DRY_RUN ]] || printf '%s\0' --dry-run
}

# -- settings ------------------------------------------------------------------------------------

REQUIRED=(NAME PROJECT ZONE BUCKET CONFIG)
declare -A DEFAULTS=(
  [NAME]='' [PROJECT]='' [ZONE]='' [BUCKET]='' [CONFIG]=''
  [TOPOLOGY]='' [ACCELERATOR_TYPE]='' [RUNTIME_VERSION]='' [SLICES]=1
  [CAPACITY]=spot [VALID_UNTIL]='' [SERVICE_ACCOUNT]='' [NETWORK]='' [SUBNETWORK]=''
  [SSH_VIA]=external [RUN]='' [MESH]='' [SOURCE_REF]=HEAD
  [PYTHON_VERSION]=3.11 [UV_VERSION]=0.13.9 [HF_TOKEN_FILE]='' [WORKER_HF_HOME]=''
  [POLL_SECONDS]=60 [RETRY_SECONDS]=30 [MAX_RECREATIONS]=0 [MAX_RELAUNCHES]=3 [SYNC_SECONDS]=60
)

# Reads KEY=VALUE lines. The file is parsed, not sourced: a value is never run as a command.
read_settings() {
  local line key value number=0 name
  for name in "${!DEFAULTS[@]}"; do printf -v "$name" %s "${DEFAULTS[$name]}"; done
  [[ -f $SETTINGS ]] || bad_input "no settings file '$SETTINGS'; copy" \
    "$SCRIPTS/settings.env.example to it and fill it in, or name one with --settings FILE."
  while IFS= read -r line || [[ -n $line ]]; do
    number=$((number + 1))
    line=${line%$'\r'}
    [[ $line =~ ^[[:space:]]*(#.*)?$ ]] && continue
    [[ $line =~ ^[[:space:]]*([A-Z_]+)=(.*)$ ]] ||
      bad_input "$SETTINGS, line $number: expected KEY=VALUE, found '$line'."
    key=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
    [[ -v DEFAULTS[$key] ]] || bad_input "$SETTINGS, line $number: unknown setting $key;" \
      "settings.env.example lists what there is."
    if [[ $value =~ ^\"([^\"]*)\"[[:space:]]*(#.*)?$ || $value =~ ^\'([^\']*)\'[[:space:]]*(#.*)?$ ]]; then
      value=${BASH_REMATCH[1]}
    else
      [[ $value =~ [[:space:]]#.*$ ]] && value=${value%%[[:space:]]#*}
      value=${value%"${value##*[![:space:]]}"}
    fi
    printf -v "$key" %s "$value"
  done <"$SETTINGS"
  check_settings
}

# matches SETTING PATTERN WHAT: the value must match, where it is given.
matches() {
  [[ -z ${!1} || ${!1} =~ $2 ]] || bad_input "$SETTINGS: $1 is '${!1}', expected $3."
}

check_settings() {
  local name missing=()
  for name in "${REQUIRED[@]}"; do [[ -n ${!name} ]] || missing+=("$name"); done
  ((${#missing[@]} == 0)) || bad_input "$SETTINGS: ${missing[*]} must be set."
  matches NAME '^[a-z]([a-z0-9-]{0,60}[a-z0-9])?$' "lower-case letters, digits and dashes, a letter first"
  matches BUCKET '^gs://[^/[:space:]]+(/[^[:space:]]*)?$' "gs://BUCKET or gs://BUCKET/FOLDER"
  matches CAPACITY '^(spot|on-demand|reserved)$' "spot, on-demand or reserved"
  matches SSH_VIA '^(external|internal|iap)$' "external, internal or iap"
  matches SLICES '^[1-9][0-9]*$' "a number from 1"
  matches PYTHON_VERSION '^3\.(1[1-9])(\.[0-9]+)?$' "3.11 or newer"
  matches UV_VERSION '^[0-9]+\.[0-9]+\.[0-9]+$' "a version like 0.13.9"
  matches POLL_SECONDS '^[0-9]+(\.[0-9]+)?$' "a number"
  for name in RETRY_SECONDS MAX_RECREATIONS MAX_RELAUNCHES SYNC_SECONDS; do
    matches "$name" '^[0-9]+$' "a whole number"
  done
  for name in CAPACITY SSH_VIA SLICES PYTHON_VERSION UV_VERSION SOURCE_REF POLL_SECONDS RETRY_SECONDS \
    MAX_RECREATIONS MAX_RELAUNCHES SYNC_SECONDS; do
    [[ -n ${!name} ]] || printf -v "$name" %s "${DEFAULTS[$name]}"
  done
  RUN=${RUN:-$(basename "$CONFIG" .yaml)}
  matches RUN '^[A-Za-z0-9][A-Za-z0-9._ -]*$' "letters, digits, dots, dashes, spaces"
  BUCKET=${BUCKET%/}
  HF_TOKEN_FILE=${HF_TOKEN_FILE/#\~\//$HOME/}
  choose_hardware
  LOCAL=$REPOSITORY/runs/$RUN       # where results are fetched to
  LAUNCH=$REPOSITORY/runs/.tpu/$RUN # what was sent to the workers, kept to send the same again
  STORED=$BUCKET/$RUN               # checkpoints/ and output/ of this run
}

# Slices of these chips whose topology is the one that their accelerator type stands for.
declare -A V5P_TOPOLOGY=([4]=2x2x1 [8]=2x2x2 [16]=2x2x4 [32]=2x4x4 [64]=4x4x4 [128]=4x4x8
  [256]=4x8x8 [512]=8x8x8 [1024]=8x8x16)
FLAT_TOPOLOGIES=" 1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16 "

# TOPOLOGY, as v5e:8x8, to the flags of `queued-resources create` and the runtime version.
choose_hardware() {
  local generation=${TOPOLOGY%%:*} shape=${TOPOLOGY#*:} chips runtime=
  HARDWARE=()
  if [[ -n $ACCELERATOR_TYPE ]]; then
    [[ -n $RUNTIME_VERSION ]] ||
      bad_input "$SETTINGS: ACCELERATOR_TYPE needs a RUNTIME_VERSION beside it."
    HARDWARE=(--accelerator-type="$ACCELERATOR_TYPE")
    return
  fi
  [[ $TOPOLOGY =~ ^v[0-9][a-z]*:[0-9]+x[0-9]+(x[0-9]+)?$ ]] ||
    bad_input "$SETTINGS: TOPOLOGY is '$TOPOLOGY', expected one like v5e:8x8 or v5p:2x2x2."
  chips=$((${shape//x/*}))
  case $generation in
    v5e | v6e)
      [[ $FLAT_TOPOLOGIES == *" $shape "* ]] || bad_input "$SETTINGS: $generation has no slice" \
        "$shape; there are${FLAT_TOPOLOGIES% }."
      ;;
    v5p)
      [[ ${V5P_TOPOLOGY[$chips]:-} == "$shape" ]] || bad_input "$SETTINGS: no accelerator type" \
        "stands for v5p:$shape${V5P_TOPOLOGY[$chips]:+; with $chips chips it is ${V5P_TOPOLOGY[$chips]}}."
      ;;
  esac
  case $generation in
    v4) HARDWARE=(--type=v4 --topology="$shape") runtime=tpu-ubuntu2204-base ;;
    v5e) HARDWARE=(--accelerator-type="v5litepod-$chips") runtime=v2-alpha-tpuv5-lite ;;
    v5p) HARDWARE=(--accelerator-type="v5p-$((2 * chips))") runtime=v2-alpha-tpuv5 ;; # counts cores
    v6e) HARDWARE=(--accelerator-type="v6e-$chips") runtime=v2-alpha-tpuv6e ;;
    *) bad_input "$SETTINGS: TOPOLOGY $TOPOLOGY: known are v4, v5e, v5p and v6e." ;;
  esac
  RUNTIME_VERSION=${RUNTIME_VERSION:-$runtime}
}

# -- running commands ----------------------------------------------------------------------------

quoted() { printf '%q' "$1" && (($# < 2)) || printf ' %q' "${@:2}"; }

# Runs a command; a dry run prints it, quoted so that it can be pasted into a shell.
run() {
  if [[ -n $DRY_RUN ]]; then
    quoted "$@" && echo
  else
    "$@" </dev/null # else ssh takes the keys typed here, and stops in the background
  fi
}

need_gcloud() {
  [[ -n $DRY_RUN ]] || command -v gcloud >/dev/null || fail "gcloud is not on the PATH;" \
    "install the Google Cloud CLI (https://cloud.google.com/sdk/docs/install), then: gcloud auth login"
}

queued_resources() {
  run gcloud compute tpus queued-resources "$@" --project="$PROJECT" --zone="$ZONE" --quiet
}

# The names of the slices: a request for several numbers them.
nodes() {
  local index
  if ((SLICES == 1)); then
    echo "$NAME"
  else
    for ((index = 0; index < SLICES; index++)); do echo "$NAME-$index"; done
  fi
}

first_node() { ((SLICES == 1)) && echo "$NAME" || echo "$NAME-0"; }

# tpu_vm ssh|scp ARGUMENTS. Host keys are not pinned: a slice that was made anew has new ones, and
# the watch must get in without anybody to answer. Only `alpha` tunnels through IAP.
tpu_vm() {
  local track=() via=()
  [[ $SSH_VIA != iap ]] || track=(alpha) via=(--tunnel-through-iap)
  [[ $SSH_VIA != internal ]] || via=(--internal-ip)
  run gcloud "${track[@]}" compute tpus tpu-vm "$@" "${via[@]}" --project="$PROJECT" \
    --zone="$ZONE" --strict-host-key-checking=no --quiet
}

# on_workers NODE WORKER COMMAND...: run a command on a worker of a slice, or on all of them.
# The words go through a remote shell, so each is quoted for it.
on_workers() { tpu_vm ssh "$1" --worker="$2" --command="$(quoted "${@:3}")"; }

# The same on all workers of all slices; fails if it failed on any of them.
everywhere() {
  local node status=0
  for node in $(nodes); do on_workers "$node" all "$@" || status=1; done
  return "$status"
}

# send FILE... PLACE: copy files to all workers; the place is below their home.
send() {
  local node
  for node in $(nodes); do
    tpu_vm scp "${@:1:$#-1}" "$node:${*: -1}" --worker=all ||
      fail "$NAME: copying to the workers failed; gcloud's message is above. status.sh shows its state."
  done
}

worker_script() { everywhere bash "$REMOTE/worker.sh" "$@"; }

# The worker in whose folder process 0 writes, in WRITER_NODE and WRITER; on TPUs it need not be
# worker 0. That one where none has written yet.
find_writer() {
  local node
  WRITER_NODE=$(first_node) WRITER=0
  for node in $(nodes); do
    if [[ -n $DRY_RUN ]]; then
      on_workers "$node" all bash "$REMOTE/worker.sh" status "$RUN"
    elif ask on_workers "$node" all bash "$REMOTE/worker.sh" status "$RUN" &&
      [[ $ANSWER == *"[writes]"* ]]; then
      WRITER_NODE=$node
      WRITER=$(sed -n 's/^worker \([0-9]*\) .* \[writes\]$/\1/p' <<<"$ANSWER" | head -n 1)
      return
    fi
  done
}

# -- asking --------------------------------------------------------------------------------------

# ask COMMAND...: its output in ANSWER; its messages are shown only if it fails.
ask() {
  local messages status=0
  messages=$(mktemp)
  ANSWER=$("$@" 2>"$messages") || status=$?
  ASK_ERROR=$(<"$messages")
  rm -f "$messages"
  return "$status"
}

# The state of the request in STATE: ACTIVE, SUSPENDED, ..., or NONE. Fails if gcloud does.
request_state() {
  if ask queued_resources describe "$NAME" --format='value(state.state)'; then
    STATE=${ANSWER:-UNKNOWN}
  elif [[ ${ASK_ERROR^^} == *NOT_FOUND* || $ASK_ERROR == *"was not found"* ]]; then
    STATE=NONE
  else
    printf '%s\n' "$ASK_ERROR" >&2
    return 1
  fi
}

# Whether a state means that the slice is gone, or will never come.
is_lost() { [[ $1 =~ ^(SUSPENDING|SUSPENDED|FAILED|PREEMPTED|TERMINATED|STOPPED)$ ]]; }

# Seconds to wait before attempt N (from 1): doubles, at most a quarter of an hour.
backoff() {
  local seconds=$((RETRY_SECONDS << ($1 > 6 ? 5 : $1 - 1)))
  echo $((seconds > 900 ? 900 : seconds))
}
