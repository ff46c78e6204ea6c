#!/usr/bin/env bash
# Copy the results of the run to this machine: metrics, samples, evaluations, report.
#
#   fetch.sh [--export] [--to FOLDER] [--dry-run] [--settings FILE]
#
# Results are in the bucket, so this works while the slice trains, and after it was deleted. While
# it is there, the worker that writes first sends what is new. Checkpoints stay in the bucket.
#
#   --export         also the trained model as a Hugging Face folder (8B: 16 GB)
#   --to FOLDER      where to; default runs/RUN in the repository
#   --dry-run        print the commands instead of running them
#   --settings FILE  another settings file than settings.env beside this script

# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

parse_common "$@"
EXPORT='' FOLDER=''
while ((${#REST[@]})); do
  case ${REST[0]} in
    --export) EXPORT=1 ;;
    --to)
      ((${#REST[@]} > 1)) || bad_input "--to needs a folder."
      FOLDER=${REST[1]}
      REST=("${REST[@]:1}")
      ;;
    *) unknown_flag "${REST[0]}" ;;
  esac
  REST=("${REST[@]:1}")
done
read_settings
need_gcloud
FOLDER=${FOLDER:-$LOCAL}

STATE=ACTIVE
if [[ -z $DRY_RUN ]]; then
  request_state || fail "gcloud could not be asked for $NAME; its message is above."
fi
if [[ $STATE == ACTIVE ]]; then
  worker_script sync "$RUN" "$STORED" ||
    warn "not every worker could send what is new; copying what the bucket has."
else
  say "$NAME is $STATE; copying what the bucket has"
fi
FLAGS=(--recursive)
[[ -n $EXPORT ]] || FLAGS+=("--exclude=^export/.*")
run mkdir -p "$FOLDER"
run gcloud storage rsync "$STORED/output" "$FOLDER" "${FLAGS[@]}" --quiet ||
  fail "nothing was copied from $STORED/output; gcloud's message is above."
say "results are in $FOLDER; open report.html there"
