#!/usr/bin/env bash
# Put the same Python, packages and source on every worker of the slice.
#
#   setup.sh [--again] [--dry-run] [--settings FILE]
#
# Sent is what is committed at SOURCE_REF (setting; default HEAD). Python comes from a pinned uv;
# the packages of the extra `tpu` are resolved once, on worker 0, into a lock with hashes that is
# kept in runs/.tpu/RUN/ and used for every worker and every later setup of the same pyproject.toml:
# a run that resumes next month does so with the same JAX. Delete the lock to take newer versions.
# At the end the versions of all workers are compared; a difference is an error.
#
# A Hugging Face token (setting HF_TOKEN_FILE) is copied as a file that only its owner can read.
# It appears in no command line and no output.
#
#   --again          send the source of the last setup again, whatever was committed since
#   --dry-run        print the commands instead of running them
#   --settings FILE  another settings file than settings.env beside this script
#
# Next: train.sh.

# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

parse_common "$@"
AGAIN=
for argument in "${REST[@]}"; do
  case $argument in
    --again) AGAIN=1 ;;
    *) unknown_flag "$argument" ;;
  esac
done
read_settings
need_gcloud
[[ -z $HF_TOKEN_FILE || -s $HF_TOKEN_FILE ]] || bad_input "$SETTINGS: HF_TOKEN_FILE:" \
  "'$HF_TOKEN_FILE' is missing or empty; 'hf auth login' writes ~/.cache/huggingface/token."

git_here() { git -C "$REPOSITORY" "$@"; }

pack_source() {
  local commit
  commit=$(git_here rev-parse --verify --quiet "$SOURCE_REF^{commit}") ||
    bad_input "$SETTINGS: SOURCE_REF: '$SOURCE_REF' is no commit of $REPOSITORY."
  git_here cat-file -e "$commit:$CONFIG" 2>/dev/null || bad_input "$SETTINGS: CONFIG: '$CONFIG' is" \
    "not committed at $SOURCE_REF; give a path within the repository and commit the file."
  [[ -z $(git_here status --porcelain) ]] ||
    warn "$REPOSITORY has uncommitted changes; they are not sent."
  run mkdir -p "$LAUNCH"
  run git -C "$REPOSITORY" archive --format=tar.gz --output="$LAUNCH/source.tar.gz" "$commit"
  if [[ -z $DRY_RUN ]]; then echo "$commit" >"$LAUNCH/commit"; fi
  COMMIT=$commit
}

if [[ -n $AGAIN && -f $LAUNCH/source.tar.gz && -f $LAUNCH/commit ]]; then
  COMMIT=$(<"$LAUNCH/commit")
else
  pack_source
fi

say "sending commit ${COMMIT:0:12} to $NAME"
everywhere mkdir -p -m 700 "$REMOTE" ||
  fail "not every worker of $NAME could be reached; gcloud's message is above. status.sh shows its state."
send "$LAUNCH/source.tar.gz" "$SCRIPTS/worker.sh" "$REMOTE/"

# The lock belongs to these packages, this Python and this resolver.
key=$({ git_here show "$COMMIT:pyproject.toml" && echo "$PYTHON_VERSION $UV_VERSION"; } |
  git hash-object --stdin)
LOCK=$LAUNCH/requirements-${key:0:12}.txt
if [[ ! -f $LOCK ]]; then
  say "resolving packages on worker 0"
  on_workers "$(first_node)" 0 bash "$REMOTE/worker.sh" lock "$PYTHON_VERSION" "$UV_VERSION" ||
    fail "the packages were not resolved; the message is above."
  tpu_vm scp "$(first_node):$REMOTE/requirements.txt" "$LOCK" --worker=0 ||
    fail "the lock was not copied from worker 0; gcloud's message is above."
fi
send "$LOCK" "$REMOTE/requirements.txt"
say "installing on all workers; some minutes the first time"
worker_script install "$PYTHON_VERSION" "$UV_VERSION" "$COMMIT" ||
  fail "not every worker could install; the messages are above. setup.sh may be run again."

if [[ -n $HF_TOKEN_FILE ]]; then
  # scp keeps the mode of a file that is there already.
  worker_script prepare-token || fail "the token was not sent; the messages are above."
  send "$HF_TOKEN_FILE" "$REMOTE/hf_token"
fi

if [[ -n $DRY_RUN ]]; then
  worker_script versions
  exit 0
fi
VERSIONS=$(worker_script versions) || fail "versions can't be asked; the message is above."
# Without the number of the worker all lines must be one.
if (($(cut -d ' ' -f 3- <<<"$VERSIONS" | sort -u | wc -l) != 1)); then
  printf '%s\n' "$VERSIONS" >&2
  fail "the workers differ, see above; run setup.sh again."
fi
say "$(wc -l <<<"$VERSIONS" | tr -d ' ') worker(s): $(head -n 1 <<<"$VERSIONS" | cut -d ' ' -f 3-)"
say "ready: train.sh starts the training"
