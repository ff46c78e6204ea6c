#!/usr/bin/env bash
# The part of the scripts that runs on the workers; setup.sh copies it there. Not run by hand.
#
#   worker.sh lock PYTHON UV                    resolve the packages: requirements.txt
#   worker.sh install PYTHON UV COMMIT          unpack source.tar.gz and install exactly that lock
#   worker.sh prepare-token                     an empty hf_token that only its owner can read
#   worker.sh versions                          one line, to be compared between the workers
#   worker.sh restore RUN STORED                earlier results from the bucket
#   worker.sh start RUN STORED SYNC HF_HOME ARGUMENT...     start training, detached
#   worker.sh status RUN                        one line: worker N STATE | last line of its log
#                                               and [writes] where results are written
#   worker.sh stop | kill                       save at the step border and end | end now
#   worker.sh log LINES [follow]                the end of the log, each line with the worker before
#   worker.sh sync RUN STORED                   results to the bucket, now; nothing where none are
#
# Process 0 writes all results. On TPUs the numbers of processes need not be those of the workers, so
# nobody knows which worker that is before training runs: every worker is ready to be it, and the one
# in whose folder the trainer wrote is.
#
# Everything lies in one folder below the home folder: source/ venv/ uv/ runs/RUN/ control/.
# setsid rather than tmux or systemd-run: it is on every image and needs neither root nor linger.
set -euo pipefail

BASE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CONTROL=$BASE/control
mkdir -p "$CONTROL"

fail() { printf 'error: worker %s: %s\n' "$(worker_index)" "$*" >&2 && exit 1; }

# Number of this worker within its slice, as gcloud's --worker counts.
worker_index() {
  local url=http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number
  if [[ -n ${TPU_WORKER_ID:-} ]]; then
    echo "$TPU_WORKER_ID"
  else
    curl -fsS --max-time 5 -H 'Metadata-Flavor: Google' "$url" 2>/dev/null || hostname
  fi
}

# -- packages ------------------------------------------------------------------------------------

# A pinned uv: it brings one known build of Python to every image, whose own (3.10) is too old.
get_uv() {
  uv=$BASE/uv/$1/uv
  export UV_PYTHON_INSTALL_DIR=$BASE/uv/python UV_NO_CONFIG=1
  if [[ ! -x $uv ]]; then
    curl -fsSL --retry 5 "https://astral.sh/uv/$1/install.sh" -o "$BASE/uv-install.sh" ||
      fail "uv $1 could not be downloaded; does the slice have a way to the internet (Cloud NAT)?"
    UV_UNMANAGED_INSTALL=$BASE/uv/$1 sh "$BASE/uv-install.sh" >/dev/null
  fi
}

unpack() {
  rm -rf "$BASE/source"
  mkdir "$BASE/source"
  tar -xzf "$BASE/source.tar.gz" -C "$BASE/source"
}

lock() {
  get_uv "$2"
  unpack
  "$uv" python install "$1"
  "$uv" pip compile --managed-python --python "$1" --extra tpu --generate-hashes \
    "$BASE/source/pyproject.toml" --output-file "$BASE/requirements.txt" >/dev/null
}

install() {
  ! is_running || fail "training is running; stop it first (train.sh --stop)."
  get_uv "$2"
  unpack
  "$uv" venv --clear --managed-python --python "$1" "$BASE/venv"
  export VIRTUAL_ENV=$BASE/venv
  "$uv" pip sync --require-hashes "$BASE/requirements.txt"
  "$uv" pip install --no-deps "$BASE/source"
  "$uv" pip check || fail "the locked packages do not fit pyproject.toml."
  printf '%s\n' "$3" >"$BASE/commit"
  printf '%s\n' "$uv" >"$BASE/uv/used"
  # JAX advises it for v5e and newer: the runtime starts and ends faster. Without root, slower.
  sudo -n sh -c 'echo always >/sys/kernel/mm/transparent_hugepage/enabled' 2>/dev/null ||
    echo "worker $(worker_index): transparent huge pages stay off (no root); starts take longer" >&2
}

prepare_token() {
  umask 077
  : >"$BASE/hf_token"
  chmod 600 "$BASE/hf_token"
}

versions() {
  local python packages
  [[ ! -f $BASE/hf_token ]] || chmod 600 "$BASE/hf_token"
  [[ -x $BASE/venv/bin/python && -f $BASE/commit ]] || fail "nothing is installed; run setup.sh."
  python=$("$BASE/venv/bin/python" --version)
  packages=$("$(<"$BASE/uv/used")" pip freeze --python "$BASE/venv/bin/python" | sha256sum)
  printf 'worker %s %s, packages %.12s, source %.12s\n' "$(worker_index)" "$python" "$packages" \
    "$(<"$BASE/commit")"
}

# -- results and the bucket ----------------------------------------------------------------------

# Checkpoints are written to the bucket by the trainer itself; the export is large and sent once.
sync_results() {
  local exclude='^checkpoints/.*'
  [[ ${3:-} == all ]] || exclude+='|^export/.*'
  gcloud storage rsync "$BASE/runs/$1" "$2/output" --recursive --exclude="$exclude" --quiet \
    >"$CONTROL/sync.log" 2>&1
}

# Whether the trainer of the last start wrote its results here: those of the bucket are older.
writes() {
  [[ -f $CONTROL/log_start && -d $BASE/runs/$1 ]] &&
    [[ -n $(find "$BASE/runs/$1" -type f -newer "$CONTROL/log_start" -print -quit) ]]
}

restore() {
  local run=$1 stored=$2 found messages=$CONTROL/restore.log
  if [[ $(worker_index) == 0 ]]; then # all at once would be too many writes of one object
    date -u +%Y-%m-%dT%H:%M:%SZ >"$CONTROL/last_start.txt"
    gcloud storage cp "$CONTROL/last_start.txt" "$stored/last_start.txt" --quiet >"$messages" 2>&1 ||
      fail "$stored can't be written to: $(tail -n 1 "$messages"). The bucket must exist, and the" \
        "slice's service account needs the role Storage Object Admin on it."
  fi
  # What was written here is newer than what was sent; what was only taken is taken anew.
  if writes "$run" || [[ -f $CONTROL/unsent && -d $BASE/runs/$run ]]; then return 0; fi
  rm -rf "${BASE:?}/runs/$run"
  found=1
  gcloud storage ls "$stored/output/" >"$messages" 2>&1 || found=
  if [[ -n $found ]]; then
    rm -rf "$BASE/runs/.new"
    mkdir -p "$BASE/runs/.new"
    gcloud storage rsync "$stored/output" "$BASE/runs/.new" --recursive --exclude='^export/.*' \
      --quiet >"$messages" 2>&1 ||
      fail "earlier results in $stored/output can't be read: $(tail -n 1 "$messages")"
    mv "$BASE/runs/.new" "$BASE/runs/$run"
    echo "worker $(worker_index): took earlier results from $stored/output"
  elif ! grep -qi 'matched no objects' "$messages"; then
    fail "$stored/output can't be listed: $(tail -n 1 "$messages")"
  fi
}

# -- training ------------------------------------------------------------------------------------

# A lock that trainer and supervisor hold as long as they live: no process id can mislead it.
is_running() {
  (exec 8>>"$CONTROL/lock" && ! flock --nonblock 8)
}

start() {
  local run=$1 i
  exec 9>>"$CONTROL/lock"
  flock --nonblock 9 || fail "training is running already: $(<"$CONTROL/run")."
  [[ -x $BASE/venv/bin/python ]] || fail "nothing is installed; run setup.sh."
  rm -f "$CONTROL"/{pid,exit_status,stop_requested}
  [[ -f $CONTROL/run && $(<"$CONTROL/run") == "$run" ]] || rm -f "$CONTROL/unsent"
  printf '%s\n' "$run" >"$CONTROL/run"
  touch "$CONTROL/train.log"
  wc -c <"$CONTROL/train.log" >"$CONTROL/log_start"
  setsid --fork nohup bash "$BASE/worker.sh" supervise "$@" </dev/null >>"$CONTROL/train.log" 2>&1
  for ((i = 0; i < 600; i++)); do
    [[ -s $CONTROL/pid ]] && break
    sleep 0.05
  done
  [[ -s $CONTROL/pid ]] || fail "training did not start; see its log (logs.sh)."
  echo "worker $(worker_index): started, process $(<"$CONTROL/pid")"
}

# Everything, the export too. What could not be sent is marked, so that nobody deletes it unseen.
send_all() {
  touch "$CONTROL/unsent"
  if sync_results "$1" "$2" all || sync_results "$1" "$2" all; then
    rm "$CONTROL/unsent"
  else
    echo "error: results were not sent to $2: $(tail -n 1 "$CONTROL/sync.log")"
    return 1
  fi
}

# Runs the trainer until it ends, sends results to the bucket meanwhile, and leaves its status.
supervise() {
  local run=$1 stored=$2 every=$3 hf_home=$4 status=0 syncer
  shift 4
  cd "$BASE/source"
  [[ -z $hf_home ]] || export HF_HOME=$hf_home
  [[ ! -s $BASE/hf_token ]] || export HF_TOKEN_PATH=$BASE/hf_token
  export PYTHONUNBUFFERED=1
  trap : TERM INT HUP # a machine that shuts down signals all processes; this one ends last
  printf '== %s: %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*"
  (
    trap 'kill "$!" 2>/dev/null; exit' TERM
    while sleep "$every" & wait "$!"; do ! writes "$run" || sync_results "$run" "$stored" || true; done
  ) 9>&- &
  syncer=$!
  # In the foreground: bash runs a trap after such a command and keeps its status, where `wait` for
  # one in the background may lose it.
  # shellcheck disable=SC2016  # the inner shell's own number is the trainer's
  bash -c 'printf "%s\n" "$$" >"$0/pid.new" && mv "$0/pid.new" "$0/pid" && exec "$@"' "$CONTROL" \
    "$BASE/venv/bin/python" -m alphamed_jax.train --output "$BASE/runs/$run" "$@" || status=$?
  kill "$syncer" 2>/dev/null || true
  if writes "$run" || [[ -f $CONTROL/unsent ]]; then send_all "$run" "$stored" || true; fi
  printf '%s\n' "$status" >"$CONTROL/exit_status.new"
  mv "$CONTROL/exit_status.new" "$CONTROL/exit_status"
}

# idle, running, finished, stopped (asked to), interrupted (by somebody else), exited-STATUS, died;
# unsent where it finished but the bucket lacks its results; busy where another run is running.
state() {
  local code run=
  [[ ! -f $CONTROL/run ]] || run=$(<"$CONTROL/run")
  if is_running; then
    [[ $run == "$1" ]] && echo running || echo busy
  elif [[ $run != "$1" ]]; then
    echo idle
  elif [[ ! -f $CONTROL/exit_status ]]; then
    echo died
  elif code=$(<"$CONTROL/exit_status") && ((code != 0)); then
    echo "exited-$code"
  elif [[ -f $CONTROL/stop_requested ]]; then
    echo stopped
  elif this_log | grep -q '^stopped after step'; then
    echo interrupted
  elif [[ -f $CONTROL/unsent ]]; then
    echo unsent
  else
    echo finished
  fi
}

# The log since the last start.
this_log() {
  tail -c "+$(($(<"$CONTROL/log_start") + 1))" "$CONTROL/train.log"
}

status() {
  local state last=
  state=$(state "$1") # before the log is read: what has ended writes no more
  [[ ! -f $CONTROL/log_start ]] ||
    last=$(this_log | LC_ALL=C tr -cd '\n -~' | grep '[A-Za-z]' | tail -n 1 | cut -c 1-200 || true)
  printf 'worker %s %s | %s%s\n' "$(worker_index)" "$state" "$last" \
    "$(! writes "$1" || echo ' [writes]')"
}

stop() {
  if is_running; then
    touch "$CONTROL/stop_requested"
    kill -TERM "$(<"$CONTROL/pid")" 2>/dev/null || true
    echo "worker $(worker_index): asked to save at the next step border and to end"
  else
    echo "worker $(worker_index): not running"
  fi
}

end_now() {
  local pid
  is_running || return 0
  pid=$(<"$CONTROL/pid")
  kill -KILL "$pid" 2>/dev/null || true
  # The supervisor still sends what there is; wait for it, then for nothing more.
  timeout 120 flock "$CONTROL/lock" true || fail "process $pid does not end."
  echo "worker $(worker_index): ended"
}

log() {
  local prefix file=$CONTROL/train.log
  prefix="[$(worker_index)] "
  [[ -f $file ]] || fail "nothing was started on this worker yet."
  if [[ ${2:-} == follow ]]; then
    tail -n "$1" -F "$file" | sed -u "s/^/$prefix/"
  else
    tail -n "$1" "$file" | sed "s/^/$prefix/"
  fi
}

case ${1:-} in
  lock | install | versions | restore | start | supervise | status | stop | log) "$@" ;;
  prepare-token) prepare_token ;;
  kill) end_now ;;
  sync)
    if ! writes "$2" && [[ ! -f $CONTROL/unsent ]]; then
      exit 0
    elif is_running; then
      sync_results "$2" "$3" || fail "results were not sent to $3: $(tail -n 1 "$CONTROL/sync.log")"
    else
      send_all "$2" "$3"
    fi
    ;;
  *) fail "unknown command '${1:-}'." ;;
esac
