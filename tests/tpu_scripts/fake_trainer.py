"""A `python` for the workers of the tests of tpu_scripts: it can only train, and only pretends to.

What it does is the next word of `trainer` in the plan: finish, run (until SIGTERM), or exit-STATUS.
"""

import json
import os
import signal
import sys
from pathlib import Path

CLOUD = Path(os.environ["FAKE_CLOUD"])


def stopped(*_):
    if MAIN:
        print("stopped after step 3; the same command resumes.", flush=True)
    sys.exit(0)


if sys.argv[1:] == ["--version"]:
    print("Python 3.11.18")
    sys.exit(0)
worker = os.environ["TPU_WORKER_ID"]
MAIN = worker == "0"
variables = {name: os.environ.get(name) for name in ("HF_HOME", "HF_TOKEN_PATH")}
record = CLOUD / f"trainings-{worker}.jsonl"
with record.open("a") as file:
    file.write(json.dumps({"argv": sys.argv[1:], **variables}) + "\n")
signal.signal(signal.SIGTERM, stopped)
signal.alarm(300)  # nothing outlives the tests
plan = json.loads((CLOUD / "plan.json").read_text())["trainer"]
count = len(record.read_text().splitlines())
does = plan[min(count, len(plan)) - 1]
output = Path(sys.argv[sys.argv.index("--output") + 1])
if MAIN:
    print(f"step {count}", flush=True)
    output.mkdir(parents=True, exist_ok=True)
    with (output / "metrics.jsonl").open("a") as file:
        file.write(f'{{"step": {count}}}\n')
    (output / "checkpoints").mkdir(exist_ok=True)
    (output / "checkpoints" / "not-to-be-sent").write_text("large")
if does == "run":
    (CLOUD / f"ready-{worker}").touch()
    while True:
        signal.pause()
if does.startswith("exit-"):
    print(f"error: worker {worker} went wrong", flush=True)
    sys.exit(int(does.removeprefix("exit-")))
if MAIN:
    (output / "report.html").write_text("report")
    (output / "export").mkdir(exist_ok=True)
    (output / "export" / "model.safetensors").write_text("weights")
    print("finished 3 steps", flush=True)
