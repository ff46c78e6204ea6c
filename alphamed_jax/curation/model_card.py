"""README.md of an export: the model it began as, how it was trained, and on which questions."""

import json
from collections.abc import Mapping
from typing import Any

from alphamed_jax import __version__
from alphamed_jax.config import Config
from alphamed_jax.curation.manifest import Manifest
from alphamed_jax.data.specs import published_tests, resolve
from alphamed_jax.evaluation.markdown import table_lines
from alphamed_jax.evaluation.tables import Table
from alphamed_jax.model.hf_folder import local
from alphamed_jax.text import count


def model_card(
    config: Config,
    train: int,
    heldout: int,
    revisions: Mapping[str, str | None],
    manifests: Mapping[str, Manifest],
) -> str:
    """The whole file.

    Args:
      train: number of training questions, and so `heldout`.
      revisions: source that came from the hub -> commit.
      manifests: file of --data -> what `alphamed curate pick` said of it.
    """
    rollout, base = config.rollout, config.model
    head = {"library_name": "transformers", "tags": ["alphamed_jax", "grpo", "medical"]}
    if local(base) is None:  # else it is nothing that others could find
        head["base_model"] = base
    at = f" ({config.model_revision})" if config.model_revision else ""
    lora, adapters = config.lora, ""
    if lora.rank:
        adapters = f", by adapters of rank {lora.rank}, alpha {lora.alpha:g} on "
        adapters += ", ".join(lora.targets)
    commits = ", ".join(f"{name} at {commit}" for name, commit in revisions.items() if commit)
    lines = [
        "---",
        *(f"{name}: {json.dumps(value)}" for name, value in head.items()),
        "---",
        "",
        f"# {config.name}",
        "",
        f"{base}{at}, trained by alphamed_jax {__version__} with reinforcement learning from the "
        f"answer key alone: {count(rollout.prompts, 'question')} x "
        f"{count(rollout.group_size, 'response')} a step, up to step {config.steps:,}, loss "
        f"{config.loss.variant}, seed {config.seed}{adapters}.",
        "",
        "For research. Its answers are no medical advice.",
        "",
        "## Data",
        "",
        f"{count(train, 'question')} for training and {heldout:,} held out, of "
        f"{', '.join(f'`{_shown(one)}`' for one in config.data)}"
        f"{f' ({commits})' if commits else ''}.",
        "",
    ]
    if tests := published_tests(config.data):
        lines += [
            f"**Trained on published tests** ({', '.join(f'`{_shown(one)}`' for one in tests)}), "
            "which was allowed by `--allow-test-data`: no figure on them says anything of this "
            "model.",
            "",
        ]
    for name, manifest in manifests.items():
        lines += _of_set(name, manifest)
    return "\n".join(lines).rstrip() + "\n"


def _shown(data: str) -> str:
    """What was given as data, of a file its name alone: its folder says nothing to others."""
    spec = resolve(data)
    if spec.path is None:
        return data
    named = spec.source.hub_id is not None
    return f"{data.partition('=')[0]}={spec.path.name}" if named else spec.path.name


def _of_set(name: str, manifest: Manifest) -> list[str]:
    """What the manifest of a set says: its tables, then all of it."""
    by_source: Mapping[str, Any] = manifest["by_source"]
    levels = list(next(iter(by_source.values()))["levels"])
    rows = [
        (source, f"{one['questions']:,}", *(f"{one['levels'][level]:,}" for level in levels))
        for source, one in by_source.items()
    ]
    steps = [
        (one["filter"], f"{one['before']:,}", f"{one['after']:,}") for one in manifest["filters"]
    ]
    return [
        *table_lines(Table(name, ("source", "questions", *levels), rows)),
        *table_lines(Table(f"How {name} was picked", ("filter", "before", "after"), steps)),
        f"<details><summary>Manifest of {name}</summary>",
        "",
        "```json",
        json.dumps(manifest, indent=2, ensure_ascii=False),
        "```",
        "",
        "</details>",
        "",
    ]
