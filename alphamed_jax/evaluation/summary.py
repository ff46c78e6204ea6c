"""What is said of one benchmark: accuracy and its interval, what stands beside it, sub-categories.

All of it follows from the samples, so that scoring them anew gives it anew.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from alphamed_jax.data.questions import LETTERS, Question
from alphamed_jax.evaluation.repeats import repeats, share_right
from alphamed_jax.evaluation.samples import Sample, Scored
from alphamed_jax.intervals import clustered_interval, wilson_interval
from alphamed_jax.text import count, number

TRUNCATED, NO_ANSWER = 0.05, 0.1
"""Shares of responses that were cut, or give no answer, above which a warning says so."""
SKEW, SKEW_P = 0.1, 0.001
"""A letter is answered far more often than it is right: by so much, and by chance so rarely."""
NOT_SAID = "not said"
"""Sub-category of a question that has no such key."""


def summarise(scored: Scored) -> dict[str, Any]:
    """The block of a set in results.json; docs/evaluation.md says what each key means.

    Shares and means are over responses, each question with the same weight; None where there are
    no responses, or none that tells.
    """
    facts, samples = scored.facts, scored.samples
    questions = by_question(samples)
    asked = [one[0].question for one in questions]
    known = [sample.tokens for sample in samples if sample.tokens is not None]
    interval, method = interval_of(questions)
    block = {
        "variant": facts.variant,
        "change": facts.change,
        "origin": facts.origin,
        "revision": facts.revision,
        "fingerprint": facts.fingerprint,
        "rows": facts.rows,
        "questions": facts.questions,
        "seed": facts.seed,
        "asked": len(questions),
        "not_asked": dict(facts.not_asked),
        "distinct": len({content(question) for question in asked}),
        "notes": dict(facts.notes),
        "responses": len(samples),
        "correct": sum(sample.right for sample in samples),
        "accuracy": accuracy_of(questions),
        "interval": interval,
        "interval_method": method,
        "balanced_accuracy": _balanced(questions),
        "most_frequent_letter": _most_frequent(asked),
        "chance": _mean([1 / len(question.options) for question in asked]),
        "no_answer": _mean([sample.letter is None for sample in samples]),
        "truncated": _mean([one.truncated for one in samples if one.truncated is not None]),
        "mean_tokens": _mean(known),
        "reasons": dict(sorted(Counter(sample.reason for sample in samples).items())),
        "answered": _letters([sample.letter for sample in samples], asked),
        "key": _letters([question.answer for question in asked], asked),
        "samples": repeats(questions),
        "by": {key: _by(key, questions) for key in facts.by},
    }
    return {**block, "warnings": warnings(block, samples)}


def means(blocks: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """`macro`: mean of the benchmarks' accuracies. `micro`: accuracy over all their questions."""
    told = [block for block in blocks if block["accuracy"] is not None]
    asked = sum(block["asked"] for block in told)
    return {
        "macro": _mean([block["accuracy"] for block in told]),
        "micro": sum(block["accuracy"] * block["asked"] for block in told) / asked
        if asked
        else None,
    }


def by_question(samples: Sequence[Sample]) -> list[list[Sample]]:
    """The samples of each question, in the order of the questions."""
    found: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[sample.doc_id].append(sample)
    return list(found.values())


def content(question: Question) -> tuple[Any, ...]:
    """What makes two rows one question: stem, options and answer."""
    return question.stem, question.options, question.answer


def accuracy_of(questions: Sequence[Sequence[Sample]]) -> float | None:
    """Mean over questions of the share of right samples; None without questions."""
    return _mean([share_right(samples) for samples in questions])


def interval_of(questions: Sequence[Sequence[Sample]]) -> tuple[list[float] | None, str]:
    """95 % interval of the accuracy over distinct questions, and in words how it was made."""
    if not questions:
        return None, "no questions"
    clusters = [content(samples[0].question) for samples in questions]
    distinct = count(len(set(clusters)), "distinct question")
    shares = [share_right(samples) for samples in questions]
    why = ""
    if max(map(len, questions)) > 1:
        clustered = clustered_interval(shares, clusters)
        if clustered:
            return list(clustered), f"t, clustered by question, {distinct}"
        why = ", as the standard error over questions is 0 or unknown"
    found = wilson_interval(float(sum(shares) / len(shares)), len(set(clusters)))
    return list(found), f"Wilson, {distinct}{why}"


def warnings(block: Mapping[str, Any], samples: Sequence[Sample]) -> list[str]:
    """What a reader must know before believing the accuracy, one line each."""
    said = []
    not_asked = sum(block["not_asked"].values())
    if not_asked:
        reasons = ", ".join(f"{n:,} {why}" for why, n in block["not_asked"].items())
        said.append(
            f"{not_asked:,} of {count(block['questions'], 'question')} were not asked ({reasons}); "
            "the accuracy is over the others"
        )
    if not samples:
        return [*said, "no responses"]
    if (cut := block["truncated"]) is not None and cut > TRUNCATED:
        limits = [limit for one in samples if (limit := one.sampling.get("max_new_tokens"))]
        limit = f" at {number(max(limits))} tokens" if limits else ""
        said.append(
            f"{cut:.1%} of the responses were cut{limit}: the limit alone may decide the score; "
            "raise --max-new-tokens"
        )
    if block["no_answer"] > NO_ANSWER:
        reasons = {why: n for why, n in block["reasons"].items() if why != "ok"}
        often = max(reasons, key=lambda why: reasons[why])
        said.append(
            f"{block['no_answer']:.1%} of the responses give no answer by this rule, most often "
            f"for the reason {often}"
        )
    said += _skew(block)
    base = block["most_frequent_letter"]
    if block["interval"][0] <= base["accuracy"]:
        said.append(
            f"not shown to be better than always answering {base['letter']}, which gives "
            f"{base['accuracy']:.3f}"
        )
    sizes = Counter(sample.doc_id for sample in samples).values()
    if min(sizes) != max(sizes):
        said.append(
            f"questions have {min(sizes)} to {max(sizes)} responses; each question has one weight"
        )
    return said


def _skew(block: Mapping[str, Any]) -> list[str]:
    """Says that one letter is answered far more often than it is right."""
    from scipy.stats import binomtest

    answered = sum(block["answered"].values())
    if not answered:
        return []
    letter = max(block["answered"], key=lambda letter: block["answered"][letter])
    share = block["answered"][letter] / answered
    right = block["key"][letter] / block["asked"]
    # Samples of a question are no independent trials; its questions are.
    trials = max(1, round(answered * block["distinct"] / block["responses"]))
    chance = binomtest(round(share * trials), trials, right, alternative="greater").pvalue
    if share - right <= SKEW or chance >= SKEW_P:
        return []
    return [f"{share:.1%} of the answers are {letter}, which is right in {right:.1%} of questions"]


def _balanced(questions: Sequence[Sequence[Sample]]) -> float | None:
    """Mean over the key's letters of the accuracy on questions with that letter."""
    shares = defaultdict(list)
    for samples in questions:
        shares[samples[0].question.answer].append(share_right(samples))
    return _mean([sum(found) / len(found) for found in shares.values()])


def _most_frequent(asked: Sequence[Question]) -> dict[str, Any] | None:
    """The key's most frequent letter, and the accuracy that always answering it gives."""
    if not asked:
        return None
    key = Counter(question.answer for question in asked)
    letter = max(sorted(key), key=lambda letter: key[letter])
    return {"letter": letter, "accuracy": key[letter] / len(asked)}


def _letters(found: Sequence[str | None], asked: Sequence[Question]) -> dict[str, int]:
    """How often each letter that a question offers was found; None is no letter."""
    counts = Counter(found)
    most = max((len(question.options) for question in asked), default=0)
    return {letter: counts[letter] for letter in LETTERS[:most]}


def _by(key: str, questions: Sequence[Sequence[Sample]]) -> dict[str, Any]:
    """Accuracy of the questions with each value of a key of `Question.meta`."""
    groups = defaultdict(list)
    for samples in questions:
        value = samples[0].question.meta.get(key)
        groups[NOT_SAID if value is None or value == "" else str(value)].append(samples)
    return {
        value: {
            "questions": len(group),
            "correct": sum(sample.right for samples in group for sample in samples),
            "accuracy": accuracy_of(group),
            "interval": interval_of(group)[0],
        }
        for value, group in sorted(groups.items())
    }


def _mean(values: Sequence[float | int | bool]) -> float | None:
    return sum(values) / len(values) if values else None
