"""The folder of an evaluation: results.json and the samples that it is made of, written and read.

results.json is `{"model", "prompt", "sampling", "rule", "benchmarks": {VARIANT: block}, "macro",
"micro", "versions", ...}`, a block as `summary.summarise` makes it. A changed form of a benchmark
has its block under `benchmarks[VARIANT]["variants"][CHANGE]`.
"""

from dataclasses import dataclass, field
from typing import Any

from alphamed_jax.evaluation.samples import Sample
from alphamed_jax.evaluation.sets import SetFacts


@dataclass(frozen=True)
class Head:
    """What a result says of the model and how it was asked."""

    model: str
    """As it was given: folder, hub id or run; `responses` where somebody else's are scored."""
    prompt: dict[str, Any]
    """`name` (plain, cot, a file, the run's), and the fields of `PromptConfig`."""
    sampling: dict[str, Any]
    """`samples`, `temperature`, `max_new_tokens`, `seed`."""
    rule: str = "boxed"
    """Which extraction rule the samples are scored by."""
    versions: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    """More about the model: family, parameters, weights digest, revision, dtype, mesh."""
    cost: dict[str, Any] = field(default_factory=dict)
    """Seconds, questions and tokens an hour, how busy the slots were."""


@dataclass(frozen=True)
class Scored:
    """A set of questions with all responses to them, ordered by question, then sample."""

    facts: SetFacts
    samples: list[Sample]
