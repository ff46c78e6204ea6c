"""Extraction rules of alphamed_jax beside those of lm-evaluation-harness, on the same responses.

    pip install lm_eval==0.4.13
    python tools/agreement_with_lm_eval.py [NAME.samples.jsonl ...]

Reads the made-up responses beside this file, those of the quickstart model, and further files of
samples as `alphamed evaluate` writes them. Prints as Markdown how often each rule reads the same
letter as what lm-evaluation-harness has for it, and why not. A difference is explained where
lm-evaluation-harness, with our reading put into its place in named points, reads our letter: the
points that it took are the reasons. Exit status 1: some difference has no explanation.

lm-evaluation-harness asks MedQA, MedMCQA and PubMedQA by the likelihood of the options, not by
responses; what reads letters out of responses there are the filters of MMLU-Pro, GPQA and the
generative MMLU, and for boxes the functions of its mathematics tasks. All are taken from the
installed package, filters from its own YAML files.
"""

import re
import string
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alphamed_jax.data.questions import LETTERS, Question
from alphamed_jax.data.rows import read_rows
from alphamed_jax.evaluation.rules import extract, last_box, outside_thought, peeled
from alphamed_jax.evaluation.samples import read_samples

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from made_up_responses import MADE_UP  # noqa: E402

QUICKSTART = HERE / "quickstart_responses.jsonl"
"""`alphamed evaluate --model quickstart --benchmarks quickstart --limit 150 --temperature 1.7
--max-new-tokens 48`: options and response of each sample."""
Asked = tuple[Question, str]
"""A question and a response to it."""
Change = Callable[[Question, str], str]
Theirs = Callable[[Sequence[Asked]], list[str | None]]
"""What lm-evaluation-harness reads out of responses: the letters it would score as right."""


@dataclass(frozen=True)
class Pair:
    """A rule of ours and what lm-evaluation-harness has for it."""

    rule: str
    theirs: str
    read: Theirs
    points: Sequence[tuple[str, Change]]
    """Where the two differ: a reason, and the response changed so that it makes no difference."""


def responses(files: Sequence[Path]) -> list[Asked]:
    """Made-up ones, those of the quickstart model, then those of the files."""
    found = [
        (Question(f"{part} {number}", "Which?", options, "A", "made-up"), response)
        for part, cases in MADE_UP.items()
        for number, (options, response, _) in enumerate(cases)
    ]
    found += [
        (Question(f"{number}", "Which?", tuple(row["options"]), "A", "quickstart"), row["response"])
        for number, row in read_rows(QUICKSTART)
    ]
    for path in files:
        found += [(sample.question, sample.response) for sample in read_samples(path)]
    return found


# --- lm-evaluation-harness ----------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Its task files name Python functions, of which the name is enough here."""


_Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def of_filter(task: str, name: str, target: str) -> Theirs:
    """What a filter of a task and the task's metric make of responses.

    Args:
      task: its YAML file within lm_eval/tasks.
      name: of the filter.
      target: how the task writes the right letter, `{}` for the letter.
    """
    import lm_eval
    from lm_eval.api.instance import Instance
    from lm_eval.filters import build_filter_ensemble

    path = Path(lm_eval.__file__).parent / "tasks" / task
    settings = yaml.load(path.read_text("utf-8"), _Loader)
    (steps,) = (one["filter"] for one in settings["filter_list"] if one["name"] == name)
    components = [
        (step["function"], {k: v for k, v in step.items() if k != "function"} or None)
        for step in steps
    ]
    metric = settings["metric_list"][0]
    how = {key: metric[key] for key in ("ignore_case", "ignore_punctuation") if key in metric}

    def read(asked: Sequence[Asked]) -> list[str | None]:
        instances = [
            Instance("generate_until", {"choices": list(question.options)}, (response, {}), number)
            for number, (question, response) in enumerate(asked)
        ]
        for instance, (_, response) in zip(instances, asked, strict=True):
            instance.resps = [response]
        build_filter_ensemble(name, components).apply(instances)
        return [
            scored_letter(one.filtered_resps[name], question, target, how)
            for one, (question, _) in zip(instances, asked, strict=True)
        ]

    return read


def scored_letter(found: str, question: Question, target: str, how: dict[str, bool]) -> str | None:
    """The letter of an option for which the metric calls a filtered response right."""
    from lm_eval.api.metrics import exact_match_hf_evaluate

    for letter in LETTERS[: len(question.options)]:
        if exact_match_hf_evaluate([found], [target.format(letter)], **how)["exact_match"]:
            return letter
    return None


def of_box(*, text: bool) -> Theirs:
    """What the functions for boxes of the mathematics tasks find, as MMLU-Pro's metric scores it.

    Args:
      text: an option's text counts as its letter.
    """
    from lm_eval.tasks.hendrycks_math.utils import last_boxed_only_string, remove_boxed

    how = {"ignore_case": True, "ignore_punctuation": True}

    def read_one(question: Question, response: str) -> str | None:
        try:
            box = last_boxed_only_string(response)
            content = "" if box is None else remove_boxed(box)
        except AssertionError:  # it trusts that a solution has a box of one kind
            return None
        letter = scored_letter(content, question, "{}", how)
        if letter or not text:
            return letter
        from lm_eval.api.metrics import exact_match_hf_evaluate

        for letter, option in zip(LETTERS, question.options, strict=False):
            if exact_match_hf_evaluate([content], [option], **how)["exact_match"]:
                return letter
        return None

    return lambda asked: [read_one(question, response) for question, response in asked]


# --- Where the two differ -----------------------------------------------------------------------


def without_thought(_: Question, response: str) -> str:
    return outside_thought(response, False) or ""


def phrases_with_letter(response: str) -> str:
    found = re.findall(r"The answer is \(?[A-J]\)?", response)
    return f"{found[0]}." if found else ""


def free_letters(question: Question) -> re.Pattern[str]:
    return re.compile(rf"\b([{''.join(LETTERS[: len(question.options)])}])\b")


def only_options(question: Question, response: str) -> str:
    letters = "".join(LETTERS[: len(question.options)])
    return re.sub(rf"\((?![{letters}]\))[A-Z]\)", "", response)


def bracketed(question: Question, response: str) -> str:
    return free_letters(question).sub(r"(\1)", response)


def no_colon(question: Question, response: str) -> str:
    return response if free_letters(question).search(response) else response.replace(":", " ")


def no_option_text(question: Question, response: str) -> str:
    return response if free_letters(question).search(response) else ""


def box(content: str | None) -> str:
    return "" if content is None else f"\\boxed{{{content}}}"


def inside(change: Change) -> Change:
    """A change of what the last box holds."""

    def whole(question: Question, response: str) -> str:
        content = last_box(response)
        return response if content is None else box(change(question, content))

    return whole


def label(question: Question, content: str) -> str:
    found = re.match(r"[(\[]?([A-Ja-j])[.:)\]]\s+\S", content)
    return found[1] if found and not question.options_look_like_labels else content


def marks_count(question: Question, content: str) -> str:
    """Marks of a content that we take for no answer become letters, so that they count."""
    if extract("boxed-or-text", box(content), question)[0]:
        return content
    return content.translate({ord(mark): "x" for mark in string.punctuation})


THOUGHT = ("a thought is read as well", without_thought)
PHRASE = [
    THOUGHT,
    (
        "only `The answer is` is a phrase",
        lambda _, t: re.sub(r"(?<!The )answer is (?=\(?[A-J])", "The answer is ", t),
    ),
    (
        "the rest of the line, without its last character, is the answer",
        lambda _, t: re.sub(r"(The answer is \(?[A-J]\)?).*", r"\1.", t),
    ),
    ("the first phrase decides, even without a letter", lambda _, t: phrases_with_letter(t)),
]
FREE = [
    THOUGHT,
    ("a bracketed letter beyond the options is taken", only_options),
    ("a letter counts in brackets only, as `(B)`", bracketed),
    ("the first letter of a word after a colon counts", no_colon),
    ("the text of an option counts wherever it stands", no_option_text),
]
BOXES = [
    THOUGHT,
    ("`\\fbox` is no box, or stops it", lambda _, t: t.replace("\\fbox", "\\boxed")),
    (
        "with white space before the brace, or without a brace, the rest of the line is the box",
        lambda _, t: re.sub(r"\\boxed(?!\s*\{)\s", "", re.sub(r"\\boxed\s+\{", r"\\boxed{", t)),
    ),
    (
        "white space in the box is not ignored",
        lambda _, t: re.sub(r"\\boxed\{\s*([^{}]*?)\s*\}", r"\\boxed{\1}", t),
    ),
    ("a last box that is empty or never closed still decides", lambda _, t: box(last_box(t))),
    ("all punctuation is ignored, as in `-B-` or `B!`", inside(marks_count)),
    (
        "`\\text{}` and the like are not peeled",
        inside(lambda _, content: peeled(content)[-1]),
    ),
    ("a letter with its option's text is not read", inside(label)),
]


def pairs() -> list[Pair]:
    """Our rules, each with the nearest that lm-evaluation-harness has."""
    flexible = "mmlu/flan_n_shot/generative/_mmlu_flan_generative_template_yaml"
    zero_shot = "gpqa/cot_zeroshot/_gpqa_cot_zeroshot_yaml"
    return [
        Pair(
            "answer-is",
            "`mmlu_pro`, filter `custom-extract`",
            of_filter("mmlu_pro/_default_template_yaml", "custom-extract", "{}"),
            [THOUGHT],
        ),
        Pair(
            "answer-is",
            "`gpqa_main_cot_zeroshot`, filter `strict-match`",
            of_filter(zero_shot, "strict-match", "({})"),
            PHRASE,
        ),
        Pair(
            "first-letter",
            "`mmlu_flan_n_shot_generative`, filter `flexible-extract`",
            of_filter(flexible, "flexible-extract", "({})"),
            FREE,
        ),
        Pair(
            "last-letter",
            "`gpqa_main_cot_zeroshot`, filter `flexible-extract`",
            of_filter(zero_shot, "flexible-extract", "({})"),
            FREE,
        ),
        Pair(
            "boxed",
            "`hendrycks_math`: `last_boxed_only_string`, `remove_boxed`",
            of_box(text=False),
            BOXES,
        ),
        Pair(
            "boxed-or-text",
            "the same, and an option's text by `exact_match`",
            of_box(text=True),
            BOXES,
        ),
    ]


# --- The comparison -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """A response that the two read as two letters."""

    question: Question
    response: str
    ours: str | None
    theirs: str | None
    reasons: tuple[str, ...]
    """Empty: not explained."""


def differences(pair: Pair, asked: Sequence[Asked]) -> list[Difference]:
    """Where the two do not read the same letter, each with the reasons.

    The points of the pair are put in one after the other. One at which what lm-evaluation-harness
    reads becomes another is a reason; the last is the one after which it reads our letter.
    """
    ours = [extract(pair.rule, response, question)[0] for question, response in asked]
    theirs = pair.read(asked)
    differ = [at for at, letter in enumerate(ours) if letter != theirs[at]]
    changed, now = dict(enumerate(asked)), dict(enumerate(theirs))
    reasons: dict[int, list[str]] = {at: [] for at in differ}
    for reason, change in pair.points:
        left = [at for at in differ if now[at] != ours[at]]
        if not left:
            break
        for at in left:
            question, response = changed[at]
            changed[at] = question, change(question, response)
        for at, letter in zip(left, pair.read([changed[at] for at in left]), strict=True):
            if letter != now[at]:
                reasons[at].append(reason)
            now[at] = letter
    return [
        Difference(
            *asked[at], ours[at], theirs[at], tuple(reasons[at]) if now[at] == ours[at] else ()
        )
        for at in differ
    ]


def cell(text: Any) -> str:
    """Text within a table, as code."""
    said = str(text).encode("unicode_escape").decode().replace("\\\\", "\\")
    return "`` " + said.replace("|", "\\|") + " ``" if said else "(empty)"


def tables(asked: Sequence[Asked]) -> tuple[list[str], int]:
    """Lines of Markdown, and how many differences are not explained."""
    summary = [
        "| our rule | lm-evaluation-harness | responses | agree | differ |",
        "|---" * 5 + "|",
    ]
    details = [
        "| our rule | in lm-evaluation-harness | responses | example | ours | theirs |",
        "|---" * 6 + "|",
    ]
    unexplained = 0
    for pair in pairs():
        found = differences(pair, asked)
        agree = len(asked) - len(found)
        summary.append(f"| `{pair.rule}` | {pair.theirs} | {len(asked)} | {agree} | {len(found)} |")
        counts = Counter(one.reasons for one in found)
        for reasons, count in counts.most_common():
            shown = [one for one in found if one.reasons == reasons]
            example = min(shown, key=lambda one: len(one.response))
            unexplained += 0 if reasons else count
            details.append(
                f"| `{pair.rule}` | {'; '.join(reasons) or 'NOT EXPLAINED'} | {count} "
                f"| {cell(example.response)} | {example.ours or '-'} | {example.theirs or '-'} |"
            )
    return [*summary, "", *details], unexplained


def main() -> None:
    lines, unexplained = tables(responses([Path(name) for name in sys.argv[1:]]))
    print("\n".join(lines))
    if unexplained:
        sys.exit(f"{unexplained} differences are not explained")


if __name__ == "__main__":
    main()
