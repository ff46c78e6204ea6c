#!/usr/bin/env bash
# Train on all workers, watch, and go on by itself after a preemption.
#
#   train.sh [--no-watch] [--delete-at-end] [-- ARGUMENT...]   start, then watch
#   train.sh --watch [--delete-at-end]                         watch what was started before
#   train.sh --stop                                            save at the next step and end
#
# Training runs detached on the workers: it survives the end of this script, of the ssh connection
# and of your laptop. Checkpoints go to BUCKET/RUN/checkpoints, results to BUCKET/RUN/output. The
# watch asks every POLL_SECONDS how things are. If the slice was taken away, it deletes what is
# left, requests it anew, waits, sets it up with the same source and packages, and starts the same
# command, which resumes from the newest checkpoint. If training failed on a slice that is still
# there, it starts it again, at most MAX_RELAUNCHES times; bad input (exit status 2) only once, as
# workers that do not find each other end with 2 as well. It needs this machine to stay on; interrupted, train.sh --watch takes it up again.
#
#   --no-watch       start and return
#   --watch          do not start, only watch
#   --stop           let the trainer save and end; the same command resumes later
#   --delete-at-end  delete the slice when training has finished: costs end by themselves
#   --dry-run        print the commands instead of running them
#   --settings FILE  another settings file than settings.env beside this script
#   -- ARGUMENT...   more arguments for python -m alphamed_jax.train, as --steps 100
#
# Exit status: 0 finished (or stopped as asked), 1 given up, 2 bad input, 130 interrupted.

# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

parse_common "$@"
MODE=start
DELETE=
MORE=()
while ((${#REST[@]})); do
  case ${REST[0]} in
    --no-watch) MODE=launch ;;
    --watch) MODE=watch ;;
    --stop) MODE=stop ;;
    --delete-at-end) DELETE=1 ;;
    --) MORE=("${REST[@]:1}") && break ;;
    *) unknown_flag "${REST[0]}" ;;
  esac
  REST=("${REST[@]:1}")
done
read_settings
need_gcloud
mapfile -d '' -t SAME < <(handed_on)

# What the last start was given is kept, so that the watch starts the same again.
if [[ $MODE == watch ]]; then
  ((${#MORE[@]} == 0)) || bad_input "--watch starts what was started before; arguments go to train.sh."
  if [[ -f $LAUNCH/arguments ]]; then mapfile -d '' -t MORE <"$LAUNCH/arguments"; fi
fi

keep_arguments() {
  mkdir -p "$LAUNCH"
  : >"$LAUNCH/arguments"
  ((${#MORE[@]} == 0)) || printf '%s\0' "${MORE[@]}" >"$LAUNCH/arguments"
}

launch() {
  local arguments=(--config "$CONFIG" --checkpoints "$STORED/checkpoints")
  [[ -z $MESH ]] || arguments+=(--mesh "$MESH")
  worker_script restore "$RUN" "$STORED" || return 1
  worker_script start "$RUN" "$STORED" "$SYNC_SECONDS" "$WORKER_HF_HOME" "${arguments[@]}" "${MORE[@]}"
}

# Make the slice anew and start again. What was reached is kept from one attempt to the next.
GONE=1
rebuild() {
  request_state || return 1
  if [[ -n $GONE ]] || is_lost "$STATE"; then
    [[ $STATE == NONE ]] || queued_resources delete "$NAME" --force || return 1
    "$SCRIPTS/create.sh" "${SAME[@]}" || return 1
    GONE=
  elif [[ $STATE != ACTIVE ]]; then
    "$SCRIPTS/create.sh" "${SAME[@]}" || return 1
  else # an earlier attempt may have started some workers
    worker_script kill || return 1
  fi
  "$SCRIPTS/setup.sh" --again "${SAME[@]}" && launch
}

RECREATIONS=0
recreate() {
  local attempt=0
  GONE=1
  while :; do
    ((MAX_RECREATIONS == 0 || RECREATIONS < MAX_RECREATIONS)) ||
      fail "$NAME was lost, and MAX_RECREATIONS ($MAX_RECREATIONS) is used up; checkpoints are in" \
        "$STORED/checkpoints."
    RECREATIONS=$((RECREATIONS + 1)) attempt=$((attempt + 1))
    say "$(date '+%F %T') making $NAME anew, number $RECREATIONS"
    ! rebuild || return 0
    warn "that did not work; trying again in $(backoff "$attempt") s"
    sleep "$(backoff "$attempt")"
  done
}

# Whether a slice is gone although the request says ACTIVE.
node_is_lost() {
  local node
  for node in $(nodes); do
    if ask run gcloud compute tpus tpu-vm describe "$node" --project="$PROJECT" --zone="$ZONE" \
      --format='value(state)' --quiet; then
      ! is_lost "$ANSWER" || return 0
    elif [[ ${ASK_ERROR^^} == *NOT_FOUND* || $ASK_ERROR == *"was not found"* ]]; then
      return 0
    fi
  done
  return 1
}

# From the lines of worker.sh status: one word for the whole run.
outcome() {
  local states
  states=" $(sed -n 's/^worker [^ ]* \([^ ]*\) .*/\1/p' <<<"$1" | sort -u | tr '\n' ' ')"
  case $states in
    *" busy "*) echo busy ;;
    *" exited-2 "*) echo refused ;;
    *" exited-"*) echo failed ;;
    *" running "*) echo running ;; # the others follow, or the trainer notices that one is missing
    *" idle "*) echo gone ;;
    *" died "*) echo failed ;;
    *" stopped "*) echo stopped ;;
    *" interrupted "*) echo interrupted ;;
    *" unsent "*) echo unsent ;;
    *" finished "*) echo finished ;;
    *) echo unknown ;;
  esac
}

RELAUNCHES=0 REFUSALS=0
relaunch() {
  ((RELAUNCHES < MAX_RELAUNCHES)) || give_up "training ended $((RELAUNCHES + 1)) times"
  RELAUNCHES=$((RELAUNCHES + 1))
  say "$(date '+%F %T') training $1; starting it again, number $RELAUNCHES of $MAX_RELAUNCHES"
  sleep "$(backoff "$RELAUNCHES")"
  # A machine that was repaired comes back empty.
  if [[ $1 == gone ]]; then "$SCRIPTS/setup.sh" --again "${SAME[@]}" || return 0; fi
  worker_script kill || return 0
  launch || warn "it could not be started; looking again in $POLL_SECONDS s"
}

give_up() {
  printf '%s\n' "$ANSWER" >&2
  find_writer
  on_workers "$WRITER_NODE" "$WRITER" bash "$REMOTE/worker.sh" log 30 >&2 || true
  fail "$1; the log of worker $WRITER is above, logs.sh shows all. The slice is still there, and costs."
}

finished() {
  say "finished: fetch.sh copies the results from $STORED"
  if [[ -n $DELETE ]]; then
    exec "$SCRIPTS/delete.sh" --yes "${SAME[@]}"
  fi
  say "the slice is still there, and costs: delete.sh"
  exit 0
}

watch() {
  local running=0 misses=0 line last='' what
  trap 'echo; say "training goes on without the watch; train.sh --watch takes it up again"; exit 130' INT
  while :; do
    sleep "$POLL_SECONDS"
    if ! request_state; then
      warn "gcloud could not be asked, number $((++misses)); asking again in $POLL_SECONDS s"
      continue
    fi
    if is_lost "$STATE"; then
      say "$(date '+%F %T') $NAME is $STATE"
      recreate
      continue
    fi
    [[ $STATE != NONE && $STATE != DELETING ]] || fail "$NAME was deleted; the watch ends."
    if [[ $STATE != ACTIVE ]]; then
      say "$(date '+%F %T') $NAME is $STATE"
      continue
    fi
    if ! ask worker_script status "$RUN"; then
      if node_is_lost; then
        say "$(date '+%F %T') a slice of $NAME is gone"
        recreate
      else
        warn "not all workers could be reached, number $((++misses)); asking again in $POLL_SECONDS s"
      fi
      continue
    fi
    misses=0
    what=$(outcome "$ANSWER")
    line=$(sed -n 's/^worker [^|]*| \(.*\) \[writes\]$/\1/p' <<<"$ANSWER" | head -n 1)
    [[ -n $line ]] || line=$(sed -n 's/^worker 0 [^|]*| //p' <<<"$ANSWER" | head -n 1)
    [[ "$what: $line" == "$last" ]] || say "$(date '+%F %T') $what: $line"
    last="$what: $line"
    case $what in
      running)
        # Long after the last failure the count begins anew.
        ((++running < 60)) || RELAUNCHES=0 REFUSALS=0
        continue
        ;;
      finished) finished ;;
      stopped) say "stopped as asked; train.sh resumes" && exit 0 ;;
      busy) fail "another run is training on $NAME; see status.sh." ;;
      unsent) give_up "finished, but the results are only on their worker: fetch.sh --export sends them" ;;
      refused)
        ((REFUSALS++ == 0)) || give_up "training refused its input twice"
        relaunch "refused its input, or its processes did not find each other"
        ;;
      *) relaunch "$what" ;;
    esac
    running=0
  done
}

if [[ -n $DRY_RUN ]]; then
  case $MODE in
    stop) worker_script stop && exit 0 ;;
    start | launch) worker_script status "$RUN" && launch ;;
  esac
  [[ $MODE != launch ]] || exit 0
  say "every $POLL_SECONDS s:"
  queued_resources describe "$NAME" --format='value(state.state)'
  worker_script status "$RUN"
  say "after a preemption:"
  queued_resources delete "$NAME" --force
  "$SCRIPTS/create.sh" "${SAME[@]}"
  "$SCRIPTS/setup.sh" --again "${SAME[@]}"
  launch
  exit 0
fi

request_state || fail "gcloud could not be asked for $NAME; its message is above."
if [[ $MODE != watch && $STATE != ACTIVE ]]; then
  fail "$NAME is $STATE, not ACTIVE; create.sh requests it and waits, train.sh --watch replaces it."
fi
case $MODE in
  stop) worker_script stop || fail "not every worker could be told; the message is above." ;;
  start | launch)
    ask worker_script status "$RUN" || {
      printf '%s\n' "$ASK_ERROR" >&2
      fail "not every worker answered; the messages are above. Before setup.sh none can."
    }
    if [[ $ANSWER =~ (^|$'\n')worker\ [^\ ]+\ (running|busy)\  ]]; then
      printf '%s\n' "$ANSWER" >&2
      fail "training is running already on $NAME; train.sh --watch watches it, --stop ends it."
    fi
    launch || {
      worker_script kill >&2 || true # those that were started would wait for the others
      fail "training was not started on all workers; the messages are above."
    }
    keep_arguments
    say "started $RUN on $NAME; logs.sh --follow shows what it says"
    [[ $MODE == launch ]] || watch
    ;;
  watch)
    [[ $STATE != NONE ]] || fail "there is no $NAME in $ZONE of $PROJECT; create.sh requests it."
    watch
    ;;
esac
