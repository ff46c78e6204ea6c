"""Check that a wheel holds every tracked file of the package, its data included.

python .ci/check_wheel.py dist/alphamed_jax-0.1.0-py3-none-any.whl
"""

import subprocess
import sys
import zipfile

tracked = subprocess.run(
    ["git", "ls-files", "alphamed_jax"], capture_output=True, text=True, check=True
).stdout.split()
packed = set(zipfile.ZipFile(sys.argv[1]).namelist())
missing = [name for name in tracked if name not in packed]
if missing or not tracked:
    sys.exit(f"{sys.argv[1]} lacks {missing or 'everything: git lists no file'}")
print(f"{len(tracked)} tracked files, all in the wheel")
