"""A `gcloud` for the tests of tpu_scripts: a folder is the cloud, and workers are folders in it.

It records every call, fails on demand, loses slices, and runs what `ssh` is given for real: in a
shell whose home is the worker's folder. Run as a program; FAKE_CLOUD names the folder.
"""

# This starts hundreds of times: no pathlib, subprocess or json, which are slow to import. Files
# hold Python literals.
# ruff: noqa: PTH103, PTH105, PTH108, PTH110, PTH112, PTH119, PTH120, PTH123, PTH208
import os
import signal
import sys

CLOUD = os.environ["FAKE_CLOUD"]
PLAN, REQUEST, NODES = (f"{CLOUD}/{name}" for name in ("plan", "request", "nodes"))


def read(path):
    if os.path.exists(path):
        with open(path) as file:
            return eval(file.read())
    return None


def write(path, value):
    with open(f"{path}.{os.getpid()}", "w") as file:
        file.write(repr(value))
    os.replace(file.name, path)  # others may be reading


def copy(source, target):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(source, "rb") as reading, open(target, "wb") as writing:
        writing.write(reading.read())


def store(source, target):
    """Copy to or from the bucket: an object is there as a whole, or not."""
    copy(source, f"{CLOUD}/copying.{os.getpid()}")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.replace(f"{CLOUD}/copying.{os.getpid()}", target)


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
    folder = f"{NODES}/{node}"
    return [f"{folder}/{name}" for name in sorted(os.listdir(folder))] if node_exists(node) else []


def node_exists(node):
    return os.path.isdir(f"{NODES}/{node}")


def lose_slices():
    """What a preemption does: processes end at once and disks are gone."""
    import shutil

    for node in os.listdir(NODES) if os.path.isdir(NODES) else ():
        for home in homes(node):
            try:
                with open(f"{home}/alphamed_jax/control/pid") as file:
                    os.killpg(os.getpgid(int(file.read())), signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                continue
    shutil.rmtree(NODES, ignore_errors=True)


def follow_plan():
    """Fail or lose slices where the plan says so: after `skip` matches, `times` times."""
    plan, line = read(PLAN), " ".join(sys.argv[1:])
    if plan["events"]:
        import re
    for entry in plan["events"]:
        if not entry["times"] or not re.search(entry["match"], line):
            continue
        happens = not entry.get("skip")
        entry["times" if happens else "skip"] -= 1
        write(PLAN, plan)
        if not happens:
            continue
        if "lose" in entry:
            lose_slices()
            write(REQUEST, {"states": [entry["lose"]]})
        if "vanish" in entry:
            os.unlink(REQUEST)
        if "error" in entry:
            refuse(entry["error"])
        return


def queued_resources(verb, name):
    request = read(REQUEST)
    if verb == "create":
        if request:
            refuse(f"ALREADY_EXISTS: {name}")
        plan = read(PLAN)
        states = plan["states"].pop(0) if len(plan["states"]) > 1 else plan["states"][0]
        write(PLAN, plan)
        count = int(flag("--node-count", 1))
        nodes = [flag("--node-id")] if count == 1 else [f"{name}-{i}" for i in range(count)]
        for node in nodes:
            for worker in range(plan["workers"]):
                os.makedirs(f"{NODES}/{node}/worker-{worker}")
        write(REQUEST, {"states": states})
    elif not request:
        refuse(f"NOT_FOUND: Resource '{name}' was not found")
    elif verb == "delete":
        lose_slices()
        os.unlink(REQUEST)
    elif verb == "describe":
        state = request["states"][0]
        if len(request["states"]) > 1:
            write(REQUEST, {"states": request["states"][1:]})
        print(state)


def chosen(node):
    worker = flag("--worker", "0")
    if not homes(node):
        refuse(f"TPU {node} was not found")
    return homes(node) if worker == "all" else [homes(node)[int(worker)]]


def ssh(node):
    status = 0
    for home in chosen(node):
        environment = os.environ | {"HOME": home, "TPU_WORKER_ID": home.rpartition("-")[2]}
        os.chdir(home)
        command = ["bash", "-c", flag("--command")]
        status = os.spawnvpe(os.P_WAIT, "bash", command, environment) or status
    sys.exit(status)


def scp(words):
    *sources, target = words
    if ":" in target:
        node, place = target.split(":", 1)
        for home in chosen(node):
            for source in sources:
                into = f"{home}/{place}"
                copy(source, f"{into}/{os.path.basename(source)}" if os.path.isdir(into) else into)
    else:
        node, place = sources[0].split(":", 1)
        copy(f"{chosen(node)[0]}/{place}", target)


def local(url):
    return f"{CLOUD}/bucket/{url[5:]}" if url.startswith("gs://") else url


def files_below(folder):
    return [f"{at}/{name}" for at, _, names in os.walk(folder) for name in names]


def storage(verb, words):
    if verb == "ls" and not files_below(local(words[0])):
        refuse("One or more URLs matched no objects.")
    if verb == "cp":
        store(local(words[0]), local(words[1]))
    if verb == "rsync":
        import re

        source, target = local(words[0]), local(words[1])
        if not os.path.isdir(source):
            refuse(f"{words[0]} is no folder")
        for path in files_below(source):
            name = os.path.relpath(path, source)
            if not re.match(flag("--exclude", "^$"), name):
                store(path, f"{target}/{name}")


def main():
    # The calls that workers make are kept apart.
    kind = "worker_calls" if "TPU_WORKER_ID" in os.environ else "calls"
    with open(f"{CLOUD}/{kind}", "a") as file:
        file.write(repr(sys.argv[1:]) + "\n")
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
