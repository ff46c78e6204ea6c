"""`alphamed evaluate rescore DIR --rule RULE`: stored responses scored anew, without sampling.

Writes a whole folder of results beside DIR's, or for `--rule all` a table of all rules, which
tells how much of the scores is the rule's.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from alphamed_jax.config_io import user_path
from alphamed_jax.data.tokenizer import THINK
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.markdown import table_lines
from alphamed_jax.evaluation.results import RESULTS, Results, read_results, write_results
from alphamed_jax.evaluation.rules import RULES, extract, rule_named
from alphamed_jax.evaluation.samples import Sample, Scored
from alphamed_jax.evaluation.summary import summarise
from alphamed_jax.evaluation.tables import Table, bounds, share
from alphamed_jax.output.metrics import write_atomically

ALL = "all"
RULES_JSON = "rules.json"
RESCORED, INSIDE_THOUGHT = "rescored", "inside_thought"
"""Keys of `Head.details`."""


@dataclass(frozen=True)
class Arguments:
    """Which responses are scored anew, and how."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The output folder of a finished `alphamed evaluate`."""
    rule: str
    """How an answer is read out of a response: boxed, boxed-or-text, answer-is, first-letter,
    last-letter; or `all`, for a table of what each of them gives."""
    output: str | None = None
    """Folder of the new results. null: DIR/rescored-RULE."""


def rescore(arguments: Arguments) -> None:
    """Score anew, write, and print where.

    Raises:
      UserError: no such rule, DIR holds no results, or the output folder holds something else.
    """
    rule, folder = arguments.rule, Path(user_path(str(arguments.folder), "DIR"))
    if rule != ALL:
        rule_named(rule)
    output = folder / f"rescored-{rule}"
    if arguments.output:
        output = Path(user_path(arguments.output, "output"))
    results = read_results(folder)
    if rule == ALL:
        check_free(output, (output / RULES_JSON).is_file())
        table = rule_table(results)
        write_rules(output, table)
        print("\n".join(table_lines(_as_table(table))))
    else:
        check_free(output, was_made_by(output, RESCORED))
        head = replace(
            results.head,
            rule=rule,
            details={**results.head.details, RESCORED: f"first scored by {results.head.rule}"},
        )
        write_results(output, head, rescored(results, rule))
    print(output)


def rescored(results: Results, rule: str) -> list[Scored]:
    """The sets of a result with each response read by another rule."""
    inside = results.head.details.get(INSIDE_THOUGHT)
    return [
        replace(one, samples=[read_anew(sample, rule, inside) for sample in one.samples])
        for one in results.scored
    ]


def read_anew(sample: Sample, rule: str, inside_thought: bool | None) -> Sample:
    """The sample with its response read by a rule.

    Args:
      inside_thought: whether prompts leave a thought open; None: this one's end tells.
    """
    if inside_thought is None:
        inside_thought = sample.prompt.rstrip().endswith(THINK)
    letter, reason = extract(
        rule,
        sample.response,
        sample.question,
        inside_thought=inside_thought,
        truncated=bool(sample.truncated),
    )
    return replace(sample, letter=letter, reason=reason)


def check_free(folder: Path, ours: bool) -> None:
    """Check that results may be written into a folder.

    Args:
      ours: what stands there was made in the same way, and may be made again.

    Raises:
      UserError: something else stands there.
    """
    if folder.exists() and not ours and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} holds something else; choose another --output.")


def was_made_by(folder: Path, mark: str) -> bool:
    """Whether a folder holds results whose `Head.details` have this key."""
    try:
        return mark in json.loads((folder / RESULTS).read_bytes())["details"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


# --- All rules side by side ---------------------------------------------------------------------


def rule_table(results: Results) -> dict[str, Any]:
    """Of each set, by each rule: accuracy, its interval and the no-answer share."""
    table: dict[str, Any] = {one.facts.name: {} for one in results.scored}
    for rule in RULES:
        for one in rescored(results, rule):
            block = summarise(one)
            table[one.facts.name][rule] = {
                key: block[key] for key in ("accuracy", "interval", "no_answer", "reasons")
            }
    return table


def write_rules(folder: Path, table: Mapping[str, Any]) -> None:
    """Write rules.md and rules.json, each replaced whole."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "rules.md", "\n".join(table_lines(_as_table(table))))
    text = json.dumps(table, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / RULES_JSON, text + "\n")


def _as_table(table: Mapping[str, Any]) -> Table:
    rows: Sequence[tuple[str, ...]] = [
        (name, rule, share(one["accuracy"]), bounds(one["interval"]), share(one["no_answer"]))
        for name, rules in table.items()
        for rule, one in rules.items()
    ]
    return Table(
        "How much the score depends on the rule",
        ("benchmark", "rule", "accuracy", "95 % interval", "no answer"),
        list(rows),
        "The same responses, read by each extraction rule.",
    )
