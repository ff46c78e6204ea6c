"""Reading a profile that `jax.profiler.trace` left: when the device computed, and what.

Of the trace's two files the one for Chrome is read, which needs nothing but the standard library.
On a GPU each kernel is an event of a stream of a process "/device:GPU:0"; on a CPU the operations
of a program are events of the host that name their `hlo_op`.
"""

import gzip
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

MOST_EVENTS = 1_000_000
"""Of a trace file. JAX leaves out what is beyond."""
# They last as long as all that they call.
_CONTAINER = re.compile(r"(while|conditional|call)[.\d]*$")


class Event(NamedTuple):
    """What a device did, in microseconds."""

    start: float
    end: float
    name: str
    """Of the kernel on a GPU, else of the operation."""
    op: str
    """The instruction of the compiled program; empty where the profiler does not know it."""
    module: str
    """The compiled program, as jit_decode; empty where the profiler does not know it."""


def read(folder: Path | str) -> list[Event]:
    """Events of the devices in the newest profile below a folder, by their start.

    Raises:
      ValueError: there is none, or it was cut because it is too long.
    """
    files = sorted(Path(folder).glob("**/*.trace.json.gz"))
    files = [path for path in files if path.name != "perfetto_trace.json.gz"]
    if not files:
        raise ValueError(f"no profile below {folder}")
    return events(json.loads(gzip.decompress(files[-1].read_bytes())))


def events(trace: dict) -> list[Event]:
    """Events of the devices of a trace, by their start."""
    rows = trace["traceEvents"]
    if len(rows) >= MOST_EVENTS:
        raise ValueError(f"the profile has {len(rows)} events, of which JAX leaves out some")
    names: dict[tuple, str] = {}
    for row in rows:
        if row.get("ph") == "M" and row.get("name") in ("process_name", "thread_name"):
            key = (row["pid"], row["tid"]) if row["name"] == "thread_name" else (row["pid"],)
            names[key] = row["args"]["name"]
    on_gpu = any(name.startswith("/device:GPU") for name in names.values())
    found = []
    for row in rows:
        if row.get("ph") != "X":
            continue
        told = row.get("args", {})
        if on_gpu:
            of_device = names.get((row["pid"],), "").startswith("/device:GPU")
            # Other lines of the device repeat what its streams show.
            if not of_device or "Stream" not in names.get((row["pid"], row.get("tid")), ""):
                continue
        elif "hlo_op" not in told or _CONTAINER.match(told["hlo_op"]):
            continue
        found.append(
            Event(
                row["ts"],
                row["ts"] + row.get("dur", 0.0),
                row["name"],
                told.get("hlo_op", ""),
                told.get("hlo_module", ""),
            )
        )
    return sorted(found)


def busy(some: Iterable[Event]) -> float:
    """Microseconds in which at least one of these events (by their start) went on."""
    total, until = 0.0, float("-inf")
    for event in some:
        total += max(0.0, event.end - max(event.start, until))
        until = max(until, event.end)
    return total


def gaps(some: Iterable[Event]) -> list[float]:
    """Microseconds between these events (by their start) in which none went on, longest first."""
    found, until = [], None
    for event in some:
        if until is not None and event.start > until:
            found.append(event.start - until)
        until = event.end if until is None else max(until, event.end)
    return sorted(found, reverse=True)


def of_module(some: Iterable[Event], name: str) -> list[Event]:
    """Events of the compiled programs of a jitted function, and copies and fills between them."""
    listed = list(some)
    own = [event for event in listed if is_of(event, name)]
    if not own:
        return []
    first, last = own[0].start, max(event.end for event in own)
    return [e for e in listed if e.start >= first and e.end <= last]


def is_of(event: Event, name: str) -> bool:
    """Whether it is of a jitted function of this name."""
    return re.fullmatch(rf"jit_{re.escape(name)}([._(].*)?", event.module) is not None


def of_ops(some: Iterable[Event], ops: Iterable[str]) -> list[Event]:
    """Events of these instructions; a kernel is called as its instruction, with _ for . and -."""
    wanted = set(ops)
    kernels = {re.sub(r"[.-]", "_", op) for op in wanted}
    return [e for e in some if e.op in wanted or (not e.op and e.name in kernels)]
