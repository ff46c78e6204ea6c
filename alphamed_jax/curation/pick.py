"""`alphamed curate pick`: a training set out of scored questions, and how it was made.

    alphamed curate pick --scores scores/NAME/scores.parquet --recipe balanced --output train.jsonl
    alphamed curate pick --scores FILE FILE --recipe alphamed19k-like --output mix.jsonl
    alphamed curate pick --scores FILE --levels L2-L5 --min-tokens 40 --per-source 2000 \
--order longest --seed 1 --output long.jsonl
    alphamed curate pick --scores FILE --recipe longest --against medqa medmcqa --output clean.jsonl

`train --data FILE` takes the set; the manifest beside it, train.manifest.json, is copied into the
run's record and the export's model card. Recipes: balanced (200 questions of each level, 1,200 of
each source, as in AlphaMed's ablations), alphamed19k-like (all of medqa and 1,500 of each level of
medmcqa), longest (the 1,200 longest of each source). docs/data.md has all of it in words.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from alphamed_jax.config_io import flags_of, user_path
from alphamed_jax.curation.candidates import Pool, open_scores
from alphamed_jax.curation.check import benchmark_sets, checked
from alphamed_jax.curation.cleaned import clean
from alphamed_jax.curation.levels import LEVELS, level_name, read_levels
from alphamed_jax.curation.manifest import Manifest, file_digest, manifest_path
from alphamed_jax.curation.recipes import Order, Part, check_filled, recipe_named, take, words_of
from alphamed_jax.curation.stages import Stages
from alphamed_jax.data.questions import Question, content_id
from alphamed_jax.data.sources import load_all
from alphamed_jax.errors import UserError
from alphamed_jax.output.fingerprint import of_versions
from alphamed_jax.output.metrics import write_atomically
from alphamed_jax.runtime.agreement import VERSIONS
from alphamed_jax.terminal.display import make_console, warn
from alphamed_jax.text import count

Checked = dict[str, Any] | None
"""The report of a check; None: nothing was checked against."""
LISTS = ("scores", "sources", "levels", "against")
"""Settings that take several values, after one flag."""


@dataclass(frozen=True)
class Arguments:
    """Which scored questions make the set."""

    scores: tuple[str, ...] = ()
    """scores.parquet of `alphamed curate score`, or its folder; several after one flag, which must
    be of one model, prompt and sampling."""
    output: str | None = None
    """The set, a file ending in .jsonl."""
    recipe: str | None = None
    """balanced, alphamed19k-like or longest. null: what --per-level or --per-source say, else
    every question that the filters leave."""
    sources: tuple[str, ...] = ()
    """Only questions of these, with commas or blanks between them."""
    levels: tuple[str, ...] = ()
    """Only questions of these levels, as L2-L4 or L1,L6."""
    min_pass_rate: float | None = None
    """Only questions of which at least this share of the responses is right."""
    max_pass_rate: float | None = None
    """Only questions of which at most this share of the responses is right."""
    min_tokens: int | None = None
    """Only questions whose text has at least so many tokens."""
    max_tokens: int | None = None
    """Only questions whose text has at most so many tokens."""
    per_level: int | None = None
    """Questions of each level of each source; with a recipe, instead of its number."""
    per_source: int | None = None
    """Questions of each source; with a recipe, instead of its number."""
    order: Order = "random"
    """Which questions come first where not all are taken: by --seed, or by the length of their
    text."""
    seed: int = 0
    """Decides which questions are taken."""
    against: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME[=FILE]")] = ()
    """Benchmarks, as for `alphamed curate check`: questions that overlap with one of them are not
    taken, nor are repeats and contradictions among the questions."""

    def __post_init__(self):
        if not self.scores:
            raise UserError("nothing to pick from: give --scores FILE of `alphamed curate score`.")
        if not self.output or Path(self.output).suffix != ".jsonl":
            raise UserError(f"--output {self.output}: expected a file ending in .jsonl.")
        object.__setattr__(self, "output", user_path(self.output, "output"))
        names = tuple(name for one in self.sources for name in one.replace(",", " ").split())
        object.__setattr__(self, "sources", names)
        read_levels(self.levels)
        for name in ("min_pass_rate", "max_pass_rate"):
            rate = getattr(self, name)
            if rate is not None and not 0 <= rate <= 1:
                raise UserError(f"{name} is {rate}: expected a share from 0 to 1.")
        for name in ("min_tokens", "max_tokens", "per_level", "per_source"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}: expected at least 1.")
        if self.per_level is not None and self.per_source is not None:
            raise UserError("--per-level and --per-source: give one of them.")
        if self.recipe is not None and self.order != "random":
            raise UserError(
                "--order: the recipe has one of its own; leave --order or --recipe out."
            )

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is taken.

        Raises:
          UserError: no such recipe, or a number that is none of its own.
        """
        if self.recipe is None:
            return (Part(None, self.per_level, self.per_source, self.order),)
        parts = recipe_named(self.recipe).parts
        for name in ("per_level", "per_source"):
            number = getattr(self, name)
            if number is None:
                continue
            if all(getattr(part, name) is None for part in parts):
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"--recipe {self.recipe} takes no {flag}; leave it out.")
            parts = tuple(
                part if getattr(part, name) is None else dataclasses.replace(part, **{name: number})
                for part in parts
            )
        return parts


def read(argv: Sequence[str], program: str, description: str) -> Arguments:
    """Read a command line.

    Raises:
      UserError: an unknown flag (with the nearest known one), a value that is not of its kind, or
        a list whose flag stands twice, of which the last would win.
    """
    for name in LISTS:
        if sum(argument.split("=")[0] == f"--{name}" for argument in argv) > 1:
            raise UserError(f"--{name} is given twice: name all after one, as --{name} A B.")
    return flags_of(Arguments)(argv, program, description)


def pick(arguments: Arguments) -> None:
    """Pick, write, and print what was counted.

    Raises:
      UserError: scores that cannot be read or differ in model, prompt or sampling; a recipe that
        cannot be filled; an output that holds something else.
    """
    assert arguments.output is not None
    output, parts = Path(arguments.output), arguments.parts
    if output.exists() and not manifest_path(output).is_file():
        raise UserError(f"{output} exists and was not picked; choose another --output.")
    pool = open_scores([Path(user_path(one, "scores")) for one in arguments.scores])
    pool, found = without_overlaps(filtered(pool, arguments), arguments.against)
    levels = read_levels(arguments.levels) or LEVELS
    taken, lacks = take(parts, pool.candidates, arguments.seed, levels)
    check_filled(lacks, f"--recipe {arguments.recipe}" if arguments.recipe else "the set")
    chosen = pool.at(np.array(taken, np.int64), "; ".join(words_of(parts)))
    manifest = write_set(output, chosen, arguments, found)
    for step in manifest["filters"]:
        print(f"{step['after']:>9,} of {step['before']:,}: {step['filter']}")
    for source, block in manifest["by_source"].items():
        said = ", ".join(f"{level} {number:,}" for level, number in block["levels"].items())
        print(f"{source}: {count(block['questions'], 'question')} ({said})")
    print(f"{output}, {manifest_path(output).name}")


def filtered(pool: Pool, arguments: Arguments) -> Pool:
    """What the filters leave, each counted.

    Raises:
      UserError: a source that was not scored, or a filter that leaves nothing.
    """
    for name in arguments.sources:
        if name not in pool.sources:
            there = ", ".join(sorted(set(pool.sources.tolist())))
            raise UserError(f"--sources {name}: not in the scores, which hold {there}.")
    if names := arguments.sources:
        pool = pool.keep(np.isin(pool.sources, names), f"sources {', '.join(names)}")
    if levels := read_levels(arguments.levels):
        names = ", ".join(map(level_name, levels))
        pool = pool.keep(np.isin(pool.levels, levels), f"levels {names}")
    if (least := arguments.min_pass_rate) is not None:
        pool = pool.keep(pool.passes >= least * pool.samples, f"pass rate at least {least:g}")
    if (most := arguments.max_pass_rate) is not None:
        pool = pool.keep(pool.passes <= most * pool.samples, f"pass rate at most {most:g}")
    if (least := arguments.min_tokens) is not None:
        pool = pool.keep(pool.question_tokens >= least, f"at least {count(least, 'token')}")
    if (most := arguments.max_tokens) is not None:
        pool = pool.keep(pool.question_tokens <= most, f"at most {count(most, 'token')}")
    return pool


def without_overlaps(pool: Pool, against: Sequence[str]) -> tuple[Pool, Checked]:
    """What neither overlaps with a benchmark nor repeats or contradicts another, each counted.

    Returns:
      The questions that stay, and the report of the check; None where nothing is checked against.

    Raises:
      UserError: a benchmark that cannot be had.
    """
    if not against:
        return pool, None
    sets, console = benchmark_sets(against), make_console()
    with Stages(console) as stages:
        found = checked(list(pool.questions()), sets, stages.show)
    cleaned = clean(found)
    report = found.report(cleaned)
    for line in report["warnings"]:
        warn(console, line)
    left: dict[str, set[str]] = {}
    for one in cleaned.removed:
        left.setdefault(one.reason, set()).add(f"{one.source}\n{one.id}")
    # One step for each reason, so that the manifest tells them apart.
    for reason, names in left.items():
        pairs = zip(pool.sources.tolist(), pool.ids.tolist(), strict=True)
        stays = np.array([f"{source}\n{name}" not in names for source, name in pairs])
        pool = pool.keep(stays, f"left out: {reason}")
    return pool, report


def write_set(path: Path, chosen: Pool, arguments: Arguments, found: Checked) -> Manifest:
    """Write a set and its manifest, each whole or not at all; returns the manifest.

    The set is read back as training reads it before it takes its place.

    Args:
      found: what the check of its questions reported.

    Raises:
      UserError: training would not take all of it, or it cannot be written.
    """
    # A name that the reader takes for a file of questions.
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    fingerprint = hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for place, question in enumerate(chosen.questions()):
                row = as_row(question, int(chosen.levels[place]), _rate(chosen, place))
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                fingerprint.update(
                    content_id(question.stem, question.options, question.answer).encode()
                )
        check_trainable(partial, path, len(chosen))
        digests = file_digest(partial), fingerprint.hexdigest()
        manifest = _manifest(path, digests, chosen, arguments, found)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    write_atomically(manifest_path(path), text + "\n")
    return manifest


def as_row(question: Question, level: int, pass_rate: float) -> dict[str, Any]:
    """A question as a row of our own schema, with its source, level and pass rate."""
    return {
        **question.meta,
        "id": question.id,
        "source": question.source,
        "question": question.stem,
        "options": list(question.options),
        "answer": question.answer,
        "level": level_name(level),
        "pass_rate": pass_rate,
    }


def check_trainable(file: Path, path: Path, questions: int) -> None:
    """Check that training takes every question of a set.

    Args:
      file: where it is now.
      path: where it will be, for messages.

    Raises:
      UserError: it does not, and why.
    """
    try:
        loaded = load_all([str(file)], 0, 0)
    except UserError as error:
        raise UserError(f"the picked set: {str(error).replace(str(file), str(path))}") from None
    if len(loaded.train) != questions:
        why = ", ".join(f"{number:,} {reason}" for reason, number in loaded.dropped.items())
        raise UserError(
            f"the picked set: training would take {len(loaded.train):,} of its "
            f"{count(questions, 'question')} ({why}); filter the others out."
        )


def _rate(chosen: Pool, place: int) -> float:
    return round(int(chosen.passes[place]) / chosen.samples, 4)


def _manifest(
    path: Path, digests: tuple[str, str], chosen: Pool, arguments: Arguments, found: Checked
) -> Manifest:
    """All there is to say of a set.

    Args:
      digests: SHA-256 of the file, and over its questions' contents in their order.
      found: what the check reported.
    """
    digest, fingerprint = digests
    flags = {
        name: value for name, value in vars(arguments).items() if name not in ("scores", "output")
    }
    sources = chosen.sources.tolist()
    return {
        "made_by": "alphamed curate pick",
        "file": path.name,
        "sha256": digest,
        "questions": len(chosen),
        "fingerprint": fingerprint,
        "seed": arguments.seed,
        "recipe": arguments.recipe,
        "parts": words_of(arguments.parts),
        "settings": flags,
        "filters": list(chosen.steps),
        "by_source": {
            source: {
                "questions": sources.count(source),
                "levels": {
                    level_name(level): int(
                        ((chosen.sources == source) & (chosen.levels == level)).sum()
                    )
                    for level in LEVELS
                },
            }
            for source in dict.fromkeys(sources)
        },
        "checked": found,
        "scores": [
            {"file": str(one), **dataclasses.asdict(head)}
            for one, head in zip(chosen.paths, chosen.heads, strict=True)
        ],
        "versions": {name.removeprefix(VERSIONS): value for name, value in of_versions().items()},
    }
