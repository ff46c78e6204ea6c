"""All processes are of one run: they compare what they are before they compute together.

A resumed run is compared with what it was in the same way.

What would happen otherwise depends on what differs: another seed dies within a collective, other
data or another learning rate train on, and neither says why. The comparison goes through the
key-value store by which JAX's processes find each other, so that it needs neither devices nor
programs that agree.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from jax._src import distributed as jax_distributed

from alphamed_jax.errors import UserError

Fingerprint = dict[str, Any]
"""Part -> value that JSON keeps as it is. Settings are called `settings.section.name`, what is only
noted `versions.name`; other names are words for the part."""

SETTINGS, VERSIONS, DIGEST = "settings.", "versions.", "sha256:"
# Where the first differs, so do the others, which would say nothing more.
_IMPLIES = {"prompts of": ("answers to", "order of", "ids of"), "answers to": ("ids of",)}
# One process may download or read long before the others; one that is gone ends this process
# through `Liveness`. Short, so that Ctrl-C is heard between two of them.
_PATIENCE_MS = 2_000


@runtime_checkable
class Store(Protocol):
    """JAX's key-value store."""

    def key_value_set(self, key: str, value: str) -> None: ...

    def blocking_key_value_get(self, key: str, timeout_in_ms: int) -> str: ...


def this_process() -> int:
    """Number of this process; known before there are devices."""
    return jax_distributed.global_state.process_id


def same_everywhere(what: str, mine: Fingerprint) -> None:
    """Compare a fingerprint with those of the other processes; each must come here.

    Args:
      what: name of the comparison, which is made once.

    Raises:
      UserError: in all processes, where one of them differs from process 0.
    """
    here = jax_distributed.global_state
    if here.client is not None and here.num_processes > 1:
        compare(what, mine, here.client, here.process_id, here.num_processes)


def of_main(what: str, value: str) -> str:
    """What process 0 says; it alone can know it, or it is to be found out once."""
    here = jax_distributed.global_state
    if here.client is None or here.num_processes == 1:
        return value
    if here.process_id == 0:
        here.client.key_value_set(f"alphamed_jax/{what}", value)
        return value
    return _wait(here.client, f"alphamed_jax/{what}")


def compare(what: str, mine: Mapping[str, Any], store: Store, process: int, count: int) -> None:
    """`same_everywhere` for process `process` of `count`; process 0 collects and decides."""
    where = f"alphamed_jax/same/{what}"
    if process == 0:
        others = [json.loads(_wait(store, f"{where}/{other}")) for other in range(1, count)]
        told = verdict([json.loads(json.dumps(mine)), *others])
        store.key_value_set(f"{where}/verdict", told)
    else:
        store.key_value_set(f"{where}/{process}", json.dumps(mine))
        told = _wait(store, f"{where}/verdict")
    if told:
        raise UserError(told)


def verdict(fingerprints: Sequence[Mapping[str, Any]]) -> str:
    """Say how the first process that is not as process 0 differs from it; empty: none does."""
    found = [differing(fingerprints[0], other) for other in fingerprints]
    wrong = [process for process, parts in enumerate(found) if parts]
    if not wrong:
        return ""
    more = f", and so do {len(wrong) - 1} more processes" if wrong[1:] else ""
    return (
        f"processes 0 and {wrong[0]} of this run differ in {', '.join(found[wrong[0]])}{more}; "
        "give all of them the same command and the same files."
    )


def must_stay(fingerprint: Mapping[str, Any]) -> Fingerprint:
    """What must be equal on resume beside the configuration, which is compared by itself."""
    return {n: v for n, v in fingerprint.items() if not n.startswith((SETTINGS, VERSIONS))}


def noted(fingerprint: Mapping[str, Any]) -> Fingerprint:
    """What is noted, and may change on resume."""
    return {n: v for n, v in fingerprint.items() if n.startswith(VERSIONS)}


def differing(one: Mapping[str, Any], other: Mapping[str, Any], now: str = "") -> list[str]:
    """Say which parts differ, with both values where they are short; parts of one alone do not.

    What follows from another difference is left out: without its row, a file is not re-keyed.

    Args:
      now: put before the value of `other`.
    """
    parts = [name for name in one if name in other and one[name] != other[name]]
    for first, others in _IMPLIES.items():
        for name in [part for part in parts if part.startswith(first)]:
            rest = name.removeprefix(first)
            parts = [part for part in parts if part not in [more + rest for more in others]]
    return [_said(name, one[name], other[name], now) for name in parts]


def _said(name: str, one: Any, other: Any, now: str) -> str:
    shown = name.removeprefix(SETTINGS).removeprefix(VERSIONS)
    values = [repr(value) for value in (one, other)]
    if any(DIGEST in value or len(value) > 60 for value in values):
        return shown
    return f"{shown} ({values[0]}, {now}{values[1]})"


def _wait(store: Store, key: str) -> str:
    while True:
        try:
            return store.blocking_key_value_get(key, _PATIENCE_MS)
        except Exception as error:  # of jaxlib, by its text alone
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
