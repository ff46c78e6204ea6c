"""Checkpoints: the whole state of a run through Orbax, written while training goes on."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from alphamed_jax.run import storage


class Checkpoints:
    """The checkpoints of one run; the newest is the one that is resumed.

    All processes write into one folder, each its own shards.

    A checkpoint holds the train state (weights, optimiser, counters) and a small record of the
    run (step, seed, questions drawn, configuration). The order of questions and the random keys
    derive from the seed and the questions drawn, so that is all there is to restore.
    """

    def __init__(self, folder: Path | str, keep: int = 2):
        """Open a folder that is there, or one in a bucket (gs://).

        Raises:
          UserError: the bucket cannot be used (see `storage.check`).
        """
        if storage.is_url(str(folder)):
            storage.check(str(folder))
            path = str(folder)
        else:
            path = Path(folder).absolute()
        self._manager = ocp.CheckpointManager(
            path, options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        )

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def complete(self) -> int | None:
        """Step of the newest checkpoint that would be found if this process ended now."""
        steps = sorted(self._manager.all_steps())
        if steps and self._manager.is_saving_in_progress():
            steps.pop()
        return steps[-1] if steps else None

    def save(self, step: int, state: Any, record: dict[str, Any]) -> None:
        """Start writing the state after `step` steps; returns once it may be donated again.

        Args:
          record: small, and JSON; that of process 0 is kept.
        """
        if step == self.latest():
            return
        # The next update overwrites the donated state in place: write from a copy of it.
        state = jax.tree.map(jnp.copy, state)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record)
            ),
        )

    def record(self, step: int) -> dict[str, Any]:
        """The run record saved with `step`."""
        args = ocp.args.Composite(record=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args)["record"]

    def restore(self, step: int, abstract_state: Any) -> Any:
        """The state after `step`, with the shapes and shardings of `abstract_state`."""
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state))
        return self._manager.restore(step, args=args)["state"]

    def close(self) -> None:
        """Wait until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
