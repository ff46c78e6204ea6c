#!/usr/bin/env bash
# Delete the TPU slice; what is on its disks is gone, what is in the bucket stays.
#
#   delete.sh [--yes] [--dry-run] [--settings FILE]
#
# Costs end here. Checkpoints and results are in the bucket (setting BUCKET) and are not touched;
# a running training loses the steps since its last checkpoint, unless train.sh --stop came first.
#
#   --yes            do not ask for confirmation
#   --dry-run        print the commands instead of running them
#   --settings FILE  another settings file than settings.env beside this script

# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

parse_common "$@"
YES=
for argument in "${REST[@]}"; do
  case $argument in
    --yes) YES=1 ;;
    *) unknown_flag "$argument" ;;
  esac
done
read_settings
need_gcloud

if [[ -z $DRY_RUN ]]; then
  request_state || fail "gcloud could not be asked for $NAME; its message is above."
  if [[ $STATE == NONE ]]; then
    say "there is no $NAME in $ZONE of $PROJECT: nothing to delete"
    exit 0
  fi
  if [[ -z $YES ]]; then
    printf 'Delete %s (%s) in %s of %s, with the disks of its workers? Type its name: ' \
      "$NAME" "$STATE" "$ZONE" "$PROJECT"
    read -r typed || bad_input "nobody is there to confirm; give --yes to delete without asking."
    [[ $typed == "$NAME" ]] || fail "not deleted: '$typed' is not $NAME."
  fi
fi
# --force deletes the slice too, not only an empty request.
queued_resources delete "$NAME" --force ||
  fail "$NAME may still be there, and cost; gcloud's message is above. Try again."
say "deleted $NAME; $STORED is kept"
