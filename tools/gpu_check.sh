#!/usr/bin/env bash
# What can only be seen on a GPU, in one command of under nine minutes and without a network:
#
#     tools/gpu_check.sh            (--help explains it, docs/gpu.md what its figures mean)
#
# Takes $PYTHON or python3 with the packages that it has, and those in folders of $PYTHONPATH; the
# package itself is read from this repository and need not be installed.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "gpu_check: error: $python is no Python 3.11 or newer; name one, as PYTHON=python3.12 $0" >&2
  exit 2
fi
export PYTHONPATH=$repository/tools:$repository${PYTHONPATH:+:$PYTHONPATH}
cd "$repository"
exec "$python" -m gpu_check "$@"
