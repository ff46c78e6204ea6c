"""A `python` for the workers of the tests of tpu_scripts: it can only train, and only pretends to.

What it does is the next word of `trainer` in the plan: finish, run (until SIGTERM), or exit-STATUS.
"""

# ruff: noqa: PTH103, PTH109, PTH123  (pathlib is slow to import, see fake_gcloud.py)
import os
import signal
import sys

CLOUD = os.environ["FAKE_CLOUD"]


def write(path, text, mode="w"):
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH120
    with open(path, mode) as file:
        file.write(text)


def read(path):
    with open(path) as file:
        return file.read()


def stopped(*_):
    if MAIN:
        print("stopped after step 3; the same command resumes.", flush=True)
    sys.exit(0)


if sys.argv[1:] == ["--version"]:
    print("Python 3.11.18")
    sys.exit(0)
worker = os.environ["TPU_WORKER_ID"]
plan = eval(read(f"{CLOUD}/plan"))
node = os.getcwd().split("/")[-4]  # the trainer starts in nodes/NODE/worker-N/alphamed_jax/source
MAIN = (node, worker) == plan["main"]  # where process 0 is
variables = {name: os.environ.get(name) for name in ("HF_HOME", "HF_TOKEN_PATH")}
record = f"{CLOUD}/trainings-{worker}"
write(record, repr({"argv": sys.argv[1:], **variables}) + "\n", "a")
signal.signal(signal.SIGTERM, stopped)
signal.alarm(300)  # nothing outlives the tests
count = len(read(record).splitlines())
does = plan["trainer"][min(count, len(plan["trainer"])) - 1]
output = sys.argv[sys.argv.index("--output") + 1]
if MAIN:
    print(f"step {count}", flush=True)
    write(f"{output}/metrics.jsonl", f'{{"step": {count}}}\n', "a")
    write(f"{output}/checkpoints/not-to-be-sent", "large")
if does == "run":
    write(f"{CLOUD}/ready-{worker}", "")
    while True:
        signal.pause()
if does.startswith("exit-"):
    print(f"error: worker {worker} went wrong", flush=True)
    sys.exit(int(does.removeprefix("exit-")))
if MAIN:
    write(f"{output}/report.html", "report")
    write(f"{output}/export/model.safetensors", "weights")
    print("finished 3 steps", flush=True)
