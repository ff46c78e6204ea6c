"""One scoring: from a model and questions to a folder of scores, in memory that does not grow.

All questions go through the sampler as one stream. Neither their prompts nor their responses are
held: questions lie on disk, what is in flight is counted, and what has ended is in the journal.
"""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool
from rich.console import Console

from alphamed_jax.config import Config, PromptConfig
from alphamed_jax.config_marks import Mark, settings_without
from alphamed_jax.curation.question_file import Limits, QuestionFile, store_questions
from alphamed_jax.curation.score_file import NAME as SCORES
from alphamed_jax.curation.score_file import ScoreHead, write_scores
from alphamed_jax.curation.score_journal import NAME as JOURNAL
from alphamed_jax.curation.score_journal import RECORD, ScoreJournal, read_journal
from alphamed_jax.curation.score_progress import ScoreProgress
from alphamed_jax.curation.score_settings import ScoreSettings
from alphamed_jax.curation.score_stream import InFlight
from alphamed_jax.curation.score_summary import show_scores, write_summary
from alphamed_jax.data.combine import Loaded
from alphamed_jax.data.order import drawn
from alphamed_jax.data.prompts import render_prompt, unstopped_turn
from alphamed_jax.data.questions import Question
from alphamed_jax.data.shelf import FoundFile
from alphamed_jax.data.sources import load_onto
from alphamed_jax.data.tokenizer import token_bytes
from alphamed_jax.errors import UserError, of_the_machine
from alphamed_jax.evaluation import wording
from alphamed_jax.evaluation.binding import Kind, bind_folder, mark_finished
from alphamed_jax.evaluation.in_training import EVALUATION_STREAM
from alphamed_jax.evaluation.progress import cost_line
from alphamed_jax.evaluation.sampling import config_of, sampler_of
from alphamed_jax.evaluation.score import Response, read_response
from alphamed_jax.evaluation.subject import Subject
from alphamed_jax.model import hf
from alphamed_jax.model.hf_identity import weights_digest
from alphamed_jax.model.network import count_parameters
from alphamed_jax.output import fingerprint
from alphamed_jax.rl.buckets import bucket
from alphamed_jax.rl.policy import Policy, open_policy
from alphamed_jax.rl.requests import Completion
from alphamed_jax.runtime import agreement, distributed
from alphamed_jax.runtime.agreement import VERSIONS, Fingerprint, noted
from alphamed_jax.terminal.display import show_first_prompt
from alphamed_jax.text import count

RULE = "boxed"
"""Difficulty is told by the rule that training rewards."""
KIND = Kind("a scoring", "alphamed curate score", JOURNAL)


class Scoring(NamedTuple):
    """Everything that is decided before the first response."""

    settings: ScoreSettings
    subject: Subject
    wording: wording.Wording
    config: Config
    policy: Policy
    questions: QuestionFile
    folder: Path
    bound: dict[str, Any]
    """Settings that the folder is bound to."""
    identity: Fingerprint
    head: ScoreHead


def score_questions(settings: ScoreSettings, subject: Subject, console: Console) -> Path:
    """Score the questions and write the results; go on where an earlier start stopped.

    In a run of several processes all of them call it, and process 0 writes.

    Returns:
      The folder of the results.

    Raises:
      UserError: see `prepare`; a full disk: what was scored is kept.
    """
    with prepare(settings, subject) as this, contextlib.ExitStack() as held:
        held.enter_context(jax.set_mesh(this.policy.mesh))
        agreement.same_everywhere("scoring", this.identity)
        finished = False
        if distributed.is_main():  # only its output folder counts, and it may be the only one
            finished = held.enter_context(bind_folder(this.folder, this.bound, this.identity, KIND))
        if distributed.of_main(finished):
            console.print(f"{this.folder} is finished.", markup=False)
        else:
            with _full_disk_is_one_line(this):
                _score_and_write(this, console)
        if distributed.is_main():
            show_scores(console, this.folder)
        return this.folder


@contextlib.contextmanager
def prepare(settings: ScoreSettings, subject: Subject) -> Iterator[Scoring]:
    """Check all input before anything is written: model, prompt, questions.

    Raises:
      UserError: see `open_policy` and `read_questions`.
    """
    asked = settings.evaluation
    trained = subject.training.prompt if subject.training else None
    words = wording.choose(settings.prompt, trained)
    config = config_of(asked, subject, words.prompt)
    policy = open_policy(config)
    length = config.rollout.max_new_tokens
    limits = Limits(config.prompt.max_tokens, policy.model.max_position_embeddings - length)
    loaded, questions = read_questions(settings, policy.tokenizer, config.prompt, limits)
    with questions:
        width = bucket(int(questions.prompt_tokens.max()))
        policy = dataclasses.replace(policy, prompt_width=width)
        identity = (
            fingerprint.of_versions()
            | fingerprint.of_model(policy.model, weights_digest(policy.folder), subject.revision)
            | fingerprint.of_tokenizer(policy.tokenizer, policy.stop_ids)
            | fingerprint.of_numbers(policy.key, policy.compute.dtype.name, policy.mesh)
            | {
                "number of questions": len(questions),
                "questions": agreement.DIGEST + questions.fingerprint,
                "prompts of the questions": agreement.DIGEST + questions.prompts_digest,
            }
        )
        bound = settings_without(settings, Mark.MAY_CHANGE_ON_RESUME)
        bound |= {
            "prompt": words.name,
            "max_new_tokens": length,
            "max_prompt_tokens": config.prompt.max_tokens,
            **{f"prompt.{name}": value for name, value in vars(config.prompt).items()},
        }
        output = settings.output
        folder = Path(output) if output else Path("scores") / subject.title
        head = _head(settings, subject, words.name, config, questions, loaded, identity)
        yield Scoring(
            settings, subject, words, config, policy, questions, folder, bound, identity, head
        )


def read_questions(
    settings: ScoreSettings, tokenizer: Any, prompt: PromptConfig, limits: Limits
) -> tuple[Loaded, QuestionFile]:
    """Read the questions as training does; neither they nor their prompts are held in memory.

    Returns:
      What was read, without the questions, and the file of those that are asked.

    Raises:
      UserError: see `load_all` and `store_questions`.
    """
    with FoundFile() as shelf:
        loaded = load_onto(shelf, settings.data, 0, settings.seed, settings.data_revisions)
        chosen = limited(loaded.train, settings.limit, settings.seed)
        questions = store_questions(tokenizer, chosen, prompt, limits)
    return dataclasses.replace(loaded, train=(), heldout=None), questions


def limited(questions: Sequence[Question], limit: int | None, seed: int) -> Iterator[Question]:
    """Yield up to `limit` questions of each source, drawn by content, in their order."""
    if limit is None:
        yield from questions
        return
    order, left = drawn(questions, seed), Counter[str]()
    kept = np.zeros(len(questions), bool)
    for number in order.tolist():
        source = questions[number].source
        kept[number] = left[source] < limit
        left[source] += 1
    for number in np.flatnonzero(kept).tolist():
        yield questions[number]


def _head(
    settings: ScoreSettings,
    subject: Subject,
    prompt: str,
    config: Config,
    questions: QuestionFile,
    loaded: Loaded,
    identity: Fingerprint,
) -> ScoreHead:
    rollout = config.rollout
    not_drawn = loaded.rows - sum(loaded.dropped.values()) - len(questions)
    not_drawn -= sum(questions.not_asked.values())
    return ScoreHead(
        model=subject.name,
        weights=identity["weights of the model"],
        revision=subject.revision,
        prompt={"name": prompt, **vars(config.prompt)},
        sampling={
            "samples": settings.samples,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "top_k": settings.top_k,
            "max_new_tokens": rollout.max_new_tokens,
            "seed": settings.seed,
        },
        questions=len(questions),
        fingerprint=questions.fingerprint,
        data=settings.data,
        sources=questions.sources,
        revisions=loaded.revisions,
        rows=loaded.rows,
        dropped=loaded.dropped,
        not_asked=questions.not_asked | ({"not drawn by --limit": not_drawn} if not_drawn else {}),
        versions={name.removeprefix(VERSIONS): value for name, value in noted(identity).items()},
    )


def _score_and_write(this: Scoring, console: Console) -> None:
    """What is not done yet, then the results."""
    _show_start(this, console)
    records, damaged = np.zeros(0, RECORD), 0
    if distributed.is_main():
        records, damaged = read_journal(this.folder, len(this.questions))
    if damaged:
        console.print(f"{JOURNAL}: {damaged} bytes at its end were torn; they are sampled again.")
    cost = sample(this, records, console)
    if distributed.is_main():
        records, _ = read_journal(this.folder, len(this.questions))
        records = records[np.argsort(records["question"])]
        write_scores(this.folder / SCORES, this.head, this.questions, records)
        write_summary(this.folder, cost)
        mark_finished(this.folder, this.bound, this.identity, KIND)


def _show_start(this: Scoring, console: Console) -> None:
    """What is about to be asked, down to the first prompt as the model sees it."""
    policy, head, first = this.policy, this.head, this.questions[0]
    console.print(
        f"{this.subject.name}, {count_parameters(policy.model):,} parameters; prompt "
        f"{this.wording.name}, temperature {this.settings.temperature:g}, "
        f"{count(this.settings.samples, 'response')} of up to "
        f"{count(this.config.rollout.max_new_tokens, 'new token')} to each question",
        markup=False,
    )
    console.print(
        f"{head.rows:,} rows: "
        + ", ".join(f"{number:,} of {name}" for name, number in head.sources.items()),
        markup=False,
    )
    for why, number in (head.dropped | head.not_asked).items():
        console.print(f"  {number:,} not scored: {why}", markup=False)
    if notice := unstopped_turn(policy.tokenizer, first.question, policy.prompt, policy.stop_ids):
        console.print(f"warning: {notice}", style="yellow", markup=False)
    text = render_prompt(policy.tokenizer, first.question, policy.prompt)
    show_first_prompt(console, text, first.token_ids)
    if policy.automaton.inside_thought:
        console.print("prompts end with an open <think>: answers count from </think> on.")


def sample(this: Scoring, records: np.ndarray, console: Console) -> dict[str, Any]:
    """Sample what is not done yet, in one stream, into the journal; returns the cost.

    Args:
      records: what process 0 has in its journal.
    """
    settings, policy, questions = this.settings, this.policy, this.questions
    done = _done(records, len(questions))
    # Longest prompts first: those that are prefilled together are then of about one length, and
    # what needs most memory comes at once.
    order = np.argsort(-questions.prompt_tokens, kind="stable")
    numbers = order[~done[order]]
    if not len(numbers):
        return {}
    if done.any():
        console.print(f"goes on after {done.sum():,} of {count(len(done), 'question')}.")
    # Nothing is trained, so no float32 is kept where everything is computed in bfloat16.
    _, params = hf.load(policy.folder, policy.mesh, dtype=policy.compute.dtype)
    sampler = sampler_of(policy, this.config, settings.evaluation)
    vocabulary = token_bytes(policy.tokenizer)

    def read(completion: Completion, question: Question) -> Response:
        thinks = policy.automaton.inside_thought
        return read_response(vocabulary, completion, question, rule=RULE, inside_thought=thinks)

    flying = InFlight(questions, numbers.tolist(), settings.samples, read)
    progress = ScoreProgress(console, len(done), settings.samples, records)
    key = jax.random.fold_in(policy.key, EVALUATION_STREAM)
    with ScoreJournal(this.folder, enabled=distributed.is_main()) as journal, progress:
        stream = sampler.stream(sampler.load(params), flying.requests(), key)
        for completion in stream:
            if (counts := flying.take(completion)) is not None:
                journal.add(counts)
                progress.add(counts)
    cost = progress.cost(stream.occupancy)
    console.print(cost_line(cost))
    return cost | {
        # Where it ran has no part in the scores.
        "mesh": "x".join(str(size) for size in policy.mesh.shape.values()),
        "processes": jax.process_count(),
    }


def _done(records: np.ndarray, questions: int) -> Bool[np.ndarray, "n"]:
    """Of each question, whether process 0 has it; the same in all processes."""
    mine = np.zeros(questions, bool)
    mine[records["question"]] = True
    said = agreement.of_main("scored questions", np.packbits(mine).tobytes().hex())
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(said), np.uint8), count=questions)
    return bits.astype(bool)


@contextlib.contextmanager
def _full_disk_is_one_line(this: Scoring) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if (reason := of_the_machine(error)) is None:
            raise
        kept, _ = read_journal(this.folder, len(this.questions))
        raise UserError(
            f"{this.folder}: {reason.rstrip('.')}; {len(kept):,} of "
            f"{count(len(this.questions), 'question')} are scored and kept, and the same command "
            "goes on once there is room."
        ) from None
