"""What a run says of itself: its configuration, its cursor, and the record of how it ended."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax
import yaml

from alphamed_jax.config import Config, load_config, to_yaml
from alphamed_jax.config_io import read_section, read_yaml, shown
from alphamed_jax.config_marks import Mark, settings_without
from alphamed_jax.data.specs import published_tests
from alphamed_jax.errors import UserError
from alphamed_jax.output.fingerprint import of_versions
from alphamed_jax.output.metrics import write_atomically
from alphamed_jax.runtime.agreement import VERSIONS, Fingerprint, differing, must_stay, noted
from alphamed_jax.runtime.compilation import FirstStep
from alphamed_jax.runtime.distributed import is_main


def _fixed(config: Config) -> dict[str, Any]:
    """The part of a configuration that one output folder is bound to, flattened."""
    values = settings_without(config, Mark.MAY_CHANGE_ON_RESUME)
    # With a constant learning rate a longer run begins as the shorter one.
    if config.optimizer.schedule == "constant":
        del values["steps"]
    return values


def check_same(holder: str, before: Config, config: Config, where: str) -> None:
    """Refuse to go on with a run under another configuration.

    Args:
      holder: what holds the run that was made with `before`.
      where: the flag that names another place.

    Raises:
      UserError: something differs that does not bear the mark that it may.
    """
    then, now = _fixed(before), _fixed(config)
    for name in ("model_revision", "data_revisions"):
        if not then[name]:  # nothing of the hub, or a hub that was silent: the content is compared
            del now[name]
    for name in now:
        if then.get(name) != now[name]:
            back = f"--model-revision {then[name]} goes on, " if name == "model_revision" else ""
            was, wanted = shown(then.get(name)), shown(now[name])
            raise UserError(
                f"{holder} holds a run with {name} {was}, but now it is {wanted}; "
                f"{back}choose another {where}, or delete the folder to start over."
            )


def check_resumable(
    checkpoints: str, saved: dict[str, Any], config: Config, identity: Fingerprint | None = None
) -> list[str]:
    """Refuse the checkpoints of another run; return what is worth saying of those of this one.

    Args:
      checkpoints: where they lie; a copy of them may lie elsewhere.
      saved: what `cursor` returned then.
      identity: what the run is now; None: only the configurations are compared.

    Raises:
      UserError: they are of another configuration, or of other data, another model, ...
    """
    before = read_section(_as_then(saved["config"]), Config, checkpoints, without=("config",))
    before = dataclasses.replace(before, checkpoints=config.checkpoints)
    check_same(checkpoints, before, config, "--checkpoints" if config.checkpoints else "--output")
    if "fingerprint" not in saved:
        return [
            "the checkpoint is of a version that kept no fingerprint: that data, model and "
            "tokenizer are those that it was made with could not be checked."
        ]
    if identity is None:
        return []
    check_identity(checkpoints, saved["fingerprint"], identity)
    other = differing(noted(saved["fingerprint"]), noted(identity), now="now ")
    said = f"{', '.join(other)} changed since the checkpoint, and with them maybe the last digits."
    return [said] if other else []


def check_identity(holder: str, before: Fingerprint, identity: Fingerprint) -> None:
    """Refuse to go on with a run whose data, model, tokenizer or platform are not what they were.

    Raises:
      UserError: names what differs; settings are left to `check_same`.
    """
    if parts := differing(must_stay(before), must_stay(identity), now="now "):
        raise UserError(
            f"{holder} holds a run that differs in {', '.join(parts)}; give back what it was made "
            "with, or choose another --output to start over."
        )


def _as_then(values: dict[str, Any]) -> dict[str, Any]:
    """A configuration as the version meant it that wrote it.

    Those that did not know `prompt.shuffle_options` left all options in their places.
    """
    return values | {"prompt": {"shuffle_options": False, **(values.get("prompt") or {})}}


def write_config(folder: Path, config: Config) -> None:
    """Write the resolved configuration, making the folder where it is not there."""
    if is_main():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be made ({error.strerror}).") from None
        write_atomically(folder / "config.yaml", to_yaml(config))


def kept_config(folder: Path) -> Config | None:
    """The configuration of the run in `folder`, commits of the hub included; None: no run yet."""
    path = folder / "config.yaml"
    if not path.is_file():
        return None
    kept, written = load_config(path), read_yaml(path) or {}
    prompt = _as_then(written)["prompt"]
    return dataclasses.replace(
        kept,
        prompt=dataclasses.replace(kept.prompt, shuffle_options=prompt["shuffle_options"]),
    )


def cursor(
    config: Config,
    step: int,
    drawn: int,
    logs: dict[str, str],
    identity: Fingerprint | None = None,
    draws: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What a checkpoint keeps beside the train state; everything random derives from it.

    Args:
      drawn: the questions of all steps: how many one draws is known only afterwards.
      logs: see `read_logs`.
      identity: what `check_resumable` compares on resume.
      draws: what the questions drawn next depend on beside the cursor.
    """
    return {
        "step": step,
        "seed": config.seed,
        "questions_drawn": drawn,
        "draws": draws or {},
        "config": yaml.safe_load(to_yaml(config)),
        "logs": logs,
        **({} if identity is None else {"fingerprint": identity}),
    }


def read_logs(folder: Path) -> dict[str, str]:
    """The files of a run that no machine could make again, content by name within `folder`."""
    paths = [*folder.glob("*.jsonl"), *folder.glob("eval/step_*.json")]
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in sorted(paths)}


def restore_logs(folder: Path, logs: dict[str, str]) -> list[str]:
    """Write the files that `folder` lacks or holds a part of, as on a new machine; return them.

    A file that goes on where that of the checkpoint ends is left: `MetricsLog` shortens it.
    """
    taken = []
    for name, content in logs.items():
        path = folder / name
        if not path.exists() or not path.read_text("utf-8", "replace").startswith(content):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
            taken.append(name)
    return taken


def write_run(
    folder: Path,
    config: Config,
    mesh: Any,
    *,
    parameters: int,
    questions: dict[str, Any],
    seconds: float,
    first: FirstStep | None,
    identity: Fingerprint,
    best: dict[str, Any] | None,
    stopped_early: int | None,
) -> None:
    """Write run.json: versions, devices, sizes, seconds of this start and its command.

    `trained_on_tests` names the published tests that were trained on, with --allow-test-data.

    Args:
      first: what this start took until its first step; None where it took no step.
      best: the best step, by what, and where its weights are; None: there is none.
      stopped_early: step at which `eval.patience` ended the run; None: it did not.
    """
    early = {"step": stopped_early, "patience": config.eval.patience}
    record = {
        "name": config.name,
        "model": config.model,
        "steps": config.steps,
        "stopped_early": None if stopped_early is None else early,
        "best": best,
        "seed": config.seed,
        "parameters": parameters,
        "mesh": dict(mesh.shape),
        "update_mesh": config.update.mesh,
        "platform": mesh.devices.flat[0].platform,
        "devices": f"{mesh.size} x {mesh.devices.flat[0].device_kind}",
        "processes": jax.process_count(),
        "wall_seconds": round(seconds, 1),
        **(first._asdict() if first else dict.fromkeys(FirstStep._fields)),
        "command": " ".join(["python -m alphamed_jax.train", *sys.argv[1:]]),
        "questions": questions,
        "trained_on_tests": published_tests(config.data),
        "versions": {n.removeprefix(VERSIONS): v for n, v in of_versions().items()},
        "fingerprint": identity,
    }
    write_atomically(folder / "run.json", json.dumps(record, indent=2) + "\n")
