"""Checkpoints: the whole state of a run through Orbax, written while training goes on."""

import contextlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from alphamed_jax.errors import MachineError, of_the_machine
from alphamed_jax.output import storage
from alphamed_jax.runtime import distributed


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be read back; the message says why."""


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
        self._held = contextlib.ExitStack()
        self._where = str(folder)
        if storage.is_url(self._where):
            storage.check(self._where)
            path = self._where
        else:
            path = self._held.enter_context(storage.plain_path(Path(folder).absolute()))
        self._verified = False
        self._manager = ocp.CheckpointManager(
            path,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "record": ocp.JsonCheckpointHandler(),
            },
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

        The first one is waited for, opened and compared with the state: what a path, a file
        system or a library does to checkpoints shows before much is learned, not on resume.

        Args:
          record: small, and JSON; that of process 0 is kept.

        Raises:
          MachineError: this or the save before it failed, or the first cannot be read back.
        """
        if step == self.latest():
            return
        # The next update overwrites the donated state in place: write from a copy of it.
        state = jax.tree.map(jnp.copy, state)
        with self._failures(f"checkpoint {step}"):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record)
                ),
            )
            if not self._verified:
                self._manager.wait_until_finished()
        if not self._verified:
            # Process 0 makes a checkpoint whole; the others may have finished their part before.
            distributed.wait_for_all(f"checkpoint {step} is whole")
            try:
                self.verify(step, state)
            except DamagedCheckpoint as error:
                raise MachineError(
                    f"{self._where}: the checkpoint of step {step} was written but cannot be read "
                    f"back ({error}), so nothing would be kept; try another folder or disk."
                ) from error
            self._verified = True

    def verify(self, step: int, state: Any) -> None:
        """Open every array of a checkpoint and compare it with `state`, arrays or their shapes.

        Raises:
          DamagedCheckpoint: one is missing, too many, or of another shape or type.
        """
        # By a handler of its own: that of the manager takes what it has just written into a bucket
        # for unfinished in every process but the first.
        folder = self._manager.directory / str(step) / "state"
        with self._reading(), contextlib.closing(ocp.StandardCheckpointHandler()) as handler:
            found = handler.metadata(folder)
        here, there = _leaves(state), _leaves(found)
        for name in sorted(here.keys() | there.keys()):
            if here.get(name) != there.get(name):
                raise DamagedCheckpoint(
                    f"{name} is {there.get(name, 'missing')}, expected {here.get(name, 'no such')}"
                )

    def record(self, step: int) -> dict[str, Any]:
        """The run record saved with `step`.

        Raises:
          DamagedCheckpoint: there is none that can be read.
        """
        args = ocp.args.Composite(record=ocp.args.JsonRestore())
        with self._reading():
            record = self._manager.restore(step, args=args)["record"]
        if not isinstance(record, dict) or record.get("step") != step:
            raise DamagedCheckpoint("its record is not whole")
        return record

    def restore(self, step: int, abstract_state: Any) -> Any:
        """The state after `step`, with the shapes and shardings of `abstract_state`.

        Raises:
          DamagedCheckpoint: it cannot be read, or holds other arrays.
        """
        self.verify(step, abstract_state)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state))
        with self._reading():
            return self._manager.restore(step, args=args)["state"]

    def set_aside(self, step: int) -> str:
        """Put a damaged checkpoint out of the way, not away; returns where it is now."""
        name = f"damaged-{step}"
        if distributed.is_main():
            folder = self._manager.directory
            while (folder / name).exists():
                name += "-again"
            (folder / str(step)).rename(folder / name)
        distributed.wait_for_all(f"checkpoint {step} is set aside")
        self._manager.reload()
        return f"{self._where}/{name}"

    def close(self) -> None:
        """Wait until everything is on disk.

        Raises:
          MachineError: the last save failed.
        """
        try:
            with self._failures("the last checkpoint"):
                self._manager.wait_until_finished()
        finally:
            with contextlib.suppress(Exception):  # it raises a failed save once more
                self._manager.close()
            self._held.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # While an error is on its way, a second one would bury it.
        with contextlib.suppress(Exception) if kind else contextlib.nullcontext():
            self.close()

    @contextlib.contextmanager
    def _reading(self) -> Any:
        """Turn what Orbax and tensorstore raise into one sentence."""
        try:
            yield
        # A dozen kinds: of files, JSON, trees, and of tensorstore, which has but ValueError.
        except Exception as error:
            if "RESOURCE_EXHAUSTED" in str(error) or isinstance(error, MemoryError):
                raise  # the machine is too small; the checkpoint may be sound
            raise DamagedCheckpoint(_first_sentence(error)) from error

    @contextlib.contextmanager
    def _failures(self, what: str) -> Any:
        """Turn a failed save into one sentence."""
        try:
            yield
        except Exception as error:
            reason = of_the_machine(error) or _first_sentence(error)
            raise MachineError(
                f"{self._where}: {what} could not be written ({reason.rstrip('.')}); once that is "
                "mended the same command goes on from the checkpoint before."
            ) from error


def _leaves(tree: Any) -> dict[str, str]:
    """Name of each array -> its type and shape, for states, abstract states and metadata."""
    flat, _ = jax.tree_util.tree_flatten_with_path(getattr(tree, "tree", tree))
    return {
        # Orbax writes down attributes and positions as keys; by their names all are alike.
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            f"{jnp.dtype(leaf.dtype).name}{list(leaf.shape)}"
        )
        for path, leaf in flat
        if hasattr(leaf, "shape")
    }


def _first_sentence(error: Exception) -> str:
    """What an error says, without the specifications that tensorstore adds in brackets."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(" [tensorstore_spec")[0].split(" [source locations")[0][:300]
