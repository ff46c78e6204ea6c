"""The folder of an evaluation: results.json and the samples that it is made of, written and read.

results.json is `{"model", "prompt", "sampling", "rule", "benchmarks": {VARIANT: block}, "macro",
"micro", "versions", ...}`, a block as `summary.summarise` makes it. A changed form of a benchmark
has its block under `benchmarks[VARIANT]["variants"][CHANGE]`, and what it did to the answers stands
under `benchmarks[VARIANT]["robustness"]`. Nothing in it but `cost` depends on
when and how fast it was made.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.markdown import markdown
from alphamed_jax.evaluation.page import page
from alphamed_jax.evaluation.robustness import robustness
from alphamed_jax.evaluation.samples import Scored as Scored  # where callers look for it
from alphamed_jax.evaluation.samples import read_samples, write_samples
from alphamed_jax.evaluation.sets import SetFacts, fingerprint
from alphamed_jax.evaluation.summary import by_question, means, summarise
from alphamed_jax.output.metrics import write_atomically

RESULTS = "results.json"


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
class Results:
    """A folder of results, read back."""

    head: Head
    scored: list[Scored]
    """Each benchmark, its changed forms behind it."""
    raw: dict[str, Any]
    """results.json as it stands."""


def results_of(head: Head, scored: Sequence[Scored]) -> dict[str, Any]:
    """What results.json holds.

    Raises:
      ValueError: a changed form without the benchmark itself, or one set twice.
    """
    blocks: dict[str, dict[str, Any]] = {}
    scored = _ordered(scored)
    for one in scored:
        facts, block = one.facts, summarise(one)
        if facts.change:
            blocks[facts.variant].setdefault("variants", {})[facts.change] = block
        else:
            blocks[facts.variant] = block
    for name, block in blocks.items():
        if "variants" in block:
            base, *changed = (one for one in scored if one.facts.variant == name)
            block["robustness"] = robustness(base, changed, int(head.sampling.get("seed") or 0))
    said = asdict(head)
    last = {key: said.pop(key) for key in ("versions", "details", "cost")}
    return {**said, "benchmarks": blocks, **means(list(blocks.values())), **last}


def _ordered(scored: Sequence[Scored]) -> list[Scored]:
    """Each benchmark, its changed forms behind it; errors as those of `results_of`."""
    found: dict[str, list[Scored]] = {}
    for one in scored:
        if not one.facts.change:
            if one.facts.variant in found:
                raise ValueError(f"{one.facts.variant} is there twice")
            found[one.facts.variant] = [one]
    for one in scored:
        if one.facts.change and one.facts.variant not in found:
            raise ValueError(f"{one.facts.name} without {one.facts.variant}")
        if one.facts.change:
            found[one.facts.variant].append(one)
    return [one for sets in found.values() for one in sets]


def write_results(
    folder: Path, head: Head, scored: Sequence[Scored], *, published: bool = False
) -> dict[str, Any]:
    """Write samples, results.md, report.html and, last, results.json; each is replaced whole.

    Args:
      folder: made where it is not there.
      published: also set published figures beside the own ones.

    Returns:
      What results.json holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = results_of(head, scored)
    scored = _ordered(scored)
    for one in scored:
        write_samples(samples_file(folder, one.facts.name), one.samples)
    write_atomically(folder / "results.md", markdown(results, published=published))
    write_atomically(folder / "report.html", page(results, scored, published=published))
    text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / RESULTS, text + "\n")
    return results


def samples_file(folder: Path, name: str) -> Path:
    """Where the samples of a set lie.

    Raises:
      ValueError: the name of the set is no name of a file.
    """
    if Path(name).name != name:
        raise ValueError(f"{name!r} is no name of a file")
    return folder / f"{name}.samples.jsonl"


def read_results(folder: Path) -> Results:
    """Read what `write_results` wrote.

    Raises:
      UserError: the folder holds no results, or its files do not belong together.
    """
    path = folder / RESULTS
    if not path.is_file():
        what = f"no {RESULTS} in it" if folder.is_dir() else "no such folder"
        raise UserError(
            f"{folder}: {what}; expected the --output folder of a finished `alphamed evaluate`."
        )
    try:
        raw = json.loads(path.read_bytes())
        names = ("model", "prompt", "sampling", "rule", "versions", "details", "cost")
        head = Head(**{name: raw[name] for name in names})
        sets = list(_sets(raw["benchmarks"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not as `alphamed evaluate` writes it ({type(error).__name__}: {error}); "
            "evaluate anew into another --output."
        ) from None
    scored = []
    for facts, responses in sets:
        file = samples_file(folder, facts.name)
        samples = read_samples(file)
        asked = [one[0].question for one in by_question(samples)]
        if len(samples) != responses or fingerprint(asked) != facts.fingerprint:
            raise UserError(
                f"{file}: not the samples that {RESULTS} was made of ({len(samples)} responses, "
                f"expected {responses} to the questions with fingerprint "
                f"{facts.fingerprint[:12]}); restore it, or evaluate anew."
            )
        scored.append(Scored(facts, samples))
    return Results(head, scored, raw)


def _sets(benchmarks: Mapping[str, Any]) -> Iterator[tuple[SetFacts, int]]:
    """Facts of each set in results.json, and how many responses it has."""
    for block in benchmarks.values():
        for one in (block, *block.get("variants", {}).values()):
            facts = SetFacts(
                variant=one["variant"],
                change=one["change"],
                rows=one["rows"],
                questions=one["questions"],
                not_asked=one["not_asked"],
                fingerprint=one["fingerprint"],
                origin=one["origin"],
                revision=one["revision"],
                seed=one["seed"],
                notes=one["notes"],
                by=tuple(one["by"]),
            )
            yield facts, one["responses"]
