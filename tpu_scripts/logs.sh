#!/usr/bin/env bash
# Show what training says on a worker, or on all.
#
#   logs.sh [--worker N|all] [--slice N] [--lines N] [--follow] [--dry-run] [--settings FILE]
#
#   --worker N|all   which worker of the slice; default the one that writes, which alone prints
#                    progress. Errors of the others are in their own logs: --worker all
#   --slice N        which slice, where SLICES is above 1; default 0, or that of the one that writes
#   --lines N        lines from the end, default 50
#   --follow         go on as lines are added, until Ctrl-C
#   --dry-run        print the commands instead of running them
#   --settings FILE  another settings file than settings.env beside this script

# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

parse_common "$@"
WORKER='' SLICE='' LINES=50 FOLLOW=()
while ((${#REST[@]})); do
  case ${REST[0]} in
    --follow) FOLLOW=(follow) ;;
    --worker | --slice | --lines)
      ((${#REST[@]} > 1)) || bad_input "${REST[0]} needs a value."
      case ${REST[0]} in
        --worker) WORKER=${REST[1]} ;;
        --slice) SLICE=${REST[1]} ;;
        --lines) LINES=${REST[1]} ;;
      esac
      REST=("${REST[@]:1}")
      ;;
    *) unknown_flag "${REST[0]}" ;;
  esac
  REST=("${REST[@]:1}")
done
[[ $WORKER =~ ^([0-9]*|all)$ ]] || bad_input "--worker is '$WORKER', expected a number or all."
[[ $LINES =~ ^[0-9]+$ ]] || bad_input "--lines is '$LINES', expected a number."
read_settings
if [[ -n $SLICE && ! $SLICE =~ ^[0-9]+$ ]] || ((${SLICE:-0} >= SLICES)); then
  bad_input "--slice is '$SLICE', expected a number below SLICES ($SLICES)."
fi
need_gcloud

if [[ -z $WORKER && -z $SLICE ]]; then
  find_writer
  WORKER=$WRITER node=$WRITER_NODE
else
  WORKER=${WORKER:-0} node=$NAME
  ((SLICES == 1)) || node=$NAME-${SLICE:-0}
fi
on_workers "$node" "$WORKER" bash "$REMOTE/worker.sh" log "$LINES" "${FOLLOW[@]}" ||
  fail "not every log could be read; the messages are above."
