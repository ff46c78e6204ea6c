"""A `gcloud` for the tests of tpu_scripts: a folder is the cloud, and workers are folders in it.

It records every call, fails on demand, loses slices, and runs what `ssh` is given for real: in a
shell whose home is the worker's folder. Run as a program; FAKE_CLOUD names the folder.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

CLOUD = Path(os.environ["FAKE_CLOUD"])
PLAN, REQUEST = CLOUD / "plan.json", CLOUD / "request.json"


def read(path):
    return json.loads(path.read_text()) if path.exists() else None


def refuse(message, status=1):
    print(f"ERROR: (gcloud) {message}", file=sys.stderr)
    sys.exit(status)


def flag(name, default=None):
    for index, word in enumerate(sys.argv):
        if word == name:
            return sys.argv[index + 1]
        if word.startswith(name + "="):
            return word.split("=", 1)[1]
    return default


def homes(node):
    return sorted((CLOUD / "nodes" / node).glob("worker-*"))


def lose_slices():
    """What a preemption does: processes end at once and disks are gone."""
    for pid in (CLOUD / "nodes").glob("*/*/alphamed_jax/control/pid"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgid(int(pid.read_text())), signal.SIGKILL)
    shutil.rmtree(CLOUD / "nodes", ignore_errors=True)


def follow_plan():
    """Fail or lose slices where the plan says so; each entry works `times` times."""
    plan, line = read(PLAN), " ".join(sys.argv[1:])
    for entry in plan["events"]:
        if entry["times"] and re.search(entry["match"], line):
            if entry.get("skip", 0):
                entry["skip"] -= 1
                continue
            entry["times"] -= 1
            PLAN.write_text(json.dumps(plan))
            if "lose" in entry:
                lose_slices()
                REQUEST.write_text(json.dumps({**read(REQUEST), "states": [entry["lose"]]}))
            if "vanish" in entry:
                REQUEST.unlink()
            if "error" in entry:
                refuse(entry["error"])
            return
    PLAN.write_text(json.dumps(plan))


def queued_resources(verb, name):
    request = read(REQUEST)
    if verb == "create":
        if request:
            refuse(f"ALREADY_EXISTS: {name}")
        plan = read(PLAN)
        states = plan["states"].pop(0) if len(plan["states"]) > 1 else plan["states"][0]
        PLAN.write_text(json.dumps(plan))
        count = int(flag("--node-count", 1))
        nodes = [flag("--node-id")] if count == 1 else [f"{name}-{i}" for i in range(count)]
        for node in nodes:
            for worker in range(plan["workers"]):
                (CLOUD / "nodes" / node / f"worker-{worker}").mkdir(parents=True)
        REQUEST.write_text(json.dumps({"states": states}))
    elif not request:
        refuse(f"NOT_FOUND: Resource '{name}' was not found")
    elif verb == "delete":
        lose_slices()
        REQUEST.unlink()
    elif verb == "describe":
        state = request["states"][0]
        if len(request["states"]) > 1:
            REQUEST.write_text(json.dumps({"states": request["states"][1:]}))
        print(state)


def chosen(node):
    worker = flag("--worker", "0")
    if not homes(node):
        refuse(f"TPU {node} was not found")
    return homes(node) if worker == "all" else [homes(node)[int(worker)]]


def ssh(node):
    status = 0
    for home in chosen(node):
        number = home.name.split("-")[1]
        environment = os.environ | {"HOME": str(home), "TPU_WORKER_ID": number}
        command = ["bash", "-c", flag("--command")]
        done = subprocess.run(command, env=environment, cwd=home, stdin=subprocess.DEVNULL)
        status = status or done.returncode
    sys.exit(status)


def scp(words):
    *sources, target = words
    if ":" in target:
        node, place = target.split(":", 1)
        for home in chosen(node):
            for source in map(Path, sources):
                into = home / place
                shutil.copyfile(source, into / source.name if into.is_dir() else into)
    else:
        node, place = sources[0].split(":", 1)
        shutil.copyfile(chosen(node)[0] / place, target)


def local(url):
    return CLOUD / "bucket" / url.removeprefix("gs://") if url.startswith("gs://") else Path(url)


def storage(verb, words):
    if verb == "ls" and not any(local(words[0]).glob("*")):
        refuse("One or more URLs matched no objects.")
    if verb == "cp":
        local(words[1]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(local(words[0]), local(words[1]))
    if verb == "rsync":
        source, target = local(words[0]), local(words[1])
        if not source.is_dir():
            refuse(f"{words[0]} is no folder")
        for path in source.rglob("*"):
            name = str(path.relative_to(source))
            if path.is_file() and not re.match(flag("--exclude", "^$"), name):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target / name)


def main():
    with (CLOUD / "calls.jsonl").open("a") as file:
        file.write(json.dumps(sys.argv[1:]) + "\n")
    follow_plan()
    words = [word for word in sys.argv[1:] if not word.startswith("--") and word != "alpha"]
    match words:
        case ["compute", "tpus", "queued-resources", verb, name, *_]:
            queued_resources(verb, name)
        case ["compute", "tpus", "tpu-vm", "ssh", node, *_]:
            ssh(node)
        case ["compute", "tpus", "tpu-vm", "scp", *files]:
            scp(files)
        case ["compute", "tpus", "tpu-vm", "describe", node, *_]:
            if not homes(node):
                refuse(f"NOT_FOUND: {node} was not found")
            print(read(PLAN)["node_state"])
        case ["storage", verb, *rest]:
            storage(verb, rest)
        case _:
            refuse(f"the fake does not know {sys.argv[1:]}", 3)


main()
