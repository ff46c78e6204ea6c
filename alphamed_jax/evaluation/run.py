"""One evaluation: from a model and sets of questions to a folder of results."""

import contextlib
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool
from rich.console import Console

from alphamed_jax.config import Config
from alphamed_jax.config_marks import Mark, settings_without
from alphamed_jax.data.prompts import render_prompt, unstopped_turn
from alphamed_jax.data.tokenizer import token_bytes
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation import wording
from alphamed_jax.evaluation.ask import AskedSet, Item, encode_set, items_of, make_requests
from alphamed_jax.evaluation.binding import bind_folder, mark_finished
from alphamed_jax.evaluation.in_training import EVALUATION_STREAM
from alphamed_jax.evaluation.journal import Journal, Place, read_journal
from alphamed_jax.evaluation.progress import Progress, cost_line
from alphamed_jax.evaluation.results import Head, read_results, write_results
from alphamed_jax.evaluation.rules import rule_named
from alphamed_jax.evaluation.samples import Scored
from alphamed_jax.evaluation.sampling import config_of, sampler_of
from alphamed_jax.evaluation.score import Response, read_response, samples_of
from alphamed_jax.evaluation.sets import QuestionSet
from alphamed_jax.evaluation.settings import Settings
from alphamed_jax.evaluation.shown import set_lines, show_results
from alphamed_jax.evaluation.subject import Subject
from alphamed_jax.model.hf_identity import weights_digest
from alphamed_jax.model.network import count_parameters
from alphamed_jax.output import fingerprint
from alphamed_jax.rl.buckets import bucket
from alphamed_jax.rl.policy import Policy, load_params, open_policy, with_adapter
from alphamed_jax.runtime import agreement, distributed
from alphamed_jax.runtime.agreement import VERSIONS, Fingerprint, noted
from alphamed_jax.terminal.display import show_first_prompt, warn
from alphamed_jax.text import count

Responses = dict[Place, Response]


class Evaluation(NamedTuple):
    """Everything that is decided before the first response."""

    settings: Settings
    subject: Subject
    wording: wording.Wording
    config: Config
    policy: Policy
    sets: list[AskedSet]
    items: list[Item]
    folder: Path
    bound: dict[str, Any]
    """Settings that the folder is bound to."""
    identity: Fingerprint
    part: str
    """Tells the evaluations of one start apart."""


def prepare(
    settings: Settings,
    subject: Subject,
    sets: Sequence[QuestionSet],
    part: str = "",
    without: Mapping[str, Collection[str]] | None = None,
) -> Evaluation:
    """Check all input before anything is written: rule, prompt, model, questions.

    Args:
      part: tells the evaluations of one start apart.
      without: of each set by its name, ids of questions that are not asked.

    Raises:
      UserError: see `open_policy` and `encode_set`; nothing is left to ask.
    """
    rule_named(settings.rule)
    trained = subject.training.prompt if subject.training else None
    words = wording.choose(settings.prompt, trained)
    config = config_of(settings, subject, words.prompt)
    policy = open_policy(config)
    config = with_adapter(config, policy.model)
    limit, length = config.prompt.max_tokens, config.rollout.max_new_tokens
    room = policy.model.max_position_embeddings - length
    asked = [
        encode_set(
            policy.tokenizer,
            questions,
            config.prompt,
            limit=limit,
            room=room,
            without=(without or {}).get(questions.name, ()),
        )
        for questions in sets
    ]
    if not (items := items_of(asked)):
        raise UserError("no question is left that could be asked; raise --max-prompt-tokens.")
    width = bucket(max(len(item.prompt.token_ids) for item in items))
    policy = dataclasses.replace(policy, prompt_width=width)
    identity = (
        fingerprint.of_versions()
        | fingerprint.of_model(policy.model, weights_digest(policy.folder), subject.revision)
        | fingerprint.of_adapter(config.adapter)
        | fingerprint.of_tokenizer(policy.tokenizer, policy.stop_ids)
        | fingerprint.of_numbers(policy.key, policy.compute.dtype.name, policy.mesh)
    )
    for each in asked:
        identity |= fingerprint.of_questions(each.questions.name, each.prompts)
    bound = settings_without(settings, Mark.MAY_CHANGE_ON_RESUME)
    bound |= {
        "prompt": words.name,
        "max_new_tokens": length,
        "max_prompt_tokens": limit,
        **{f"prompt.{name}": value for name, value in wording.fields_heeded(config.prompt).items()},
    }
    folder = folder_of(settings, subject)
    return Evaluation(
        settings, subject, words, config, policy, asked, items, folder, bound, identity, part
    )


def folder_of(settings: Settings, subject: Subject) -> Path:
    """Where the results go."""
    return Path(settings.output) if settings.output else Path("evaluations") / subject.title


def evaluate(this: Evaluation, console: Console) -> Path:
    """Ask the model all questions and write the results; go on where an earlier start stopped.

    In a run of several processes all of them call it, and process 0 writes.

    Returns:
      The folder of the results.

    Raises:
      UserError: the folder is another evaluation's, or the processes differ.
    """
    with jax.set_mesh(this.policy.mesh), contextlib.ExitStack() as held:
        agreement.same_everywhere(f"evaluation {this.part}", this.identity)
        finished = False
        if distributed.is_main():  # only its output folder counts, and it may be the only one
            finished = held.enter_context(bind_folder(this.folder, this.bound, this.identity))
        if distributed.of_main(finished):
            _show_finished(this, console)
        else:
            _ask_and_write(this, console)
    return this.folder


def _show_finished(this: Evaluation, console: Console) -> None:
    """Show the results that stand, with published figures if these are now asked for."""
    if distributed.is_main():
        console.print(f"{this.folder} is finished.", markup=False)
        kept = read_results(this.folder)
        published = this.settings.published
        results = kept.raw
        if published:
            results = write_results(this.folder, kept.head, kept.scored, published=True)
        show_results(console, results, this.folder, published=published)


def _ask_and_write(this: Evaluation, console: Console) -> None:
    """What is not done yet, then the results."""
    _show_start(this, console)
    done = read_journal(this.folder) if distributed.is_main() else {}
    responses, cost = ask(this, done, console)
    if distributed.is_main():
        head, scored = head_of(this, cost), scored_sets(this, responses)
        published = this.settings.published
        results = write_results(this.folder, head, scored, published=published)
        mark_finished(this.folder, this.bound, this.identity)
        show_results(console, results, this.folder, published=published)


def _show_start(this: Evaluation, console: Console) -> None:
    """What is about to be asked, down to the first prompt as the model sees it."""
    policy, first = this.policy, this.items[0].prompt
    words, rollout = this.wording.name, this.config.rollout
    way = "greedy" if this.settings.greedy else f"temperature {this.settings.temperature:g}"
    console.print(
        f"{this.subject.label}, {count_parameters(policy.model):,} parameters; prompt {words}, "
        f"{way}, up to {count(rollout.max_new_tokens, 'new token')}",
        markup=False,
    )
    for line in set_lines(this.sets):
        console.print(line, markup=False)
    if notice := unstopped_turn(policy.tokenizer, first.question, policy.prompt, policy.stop_ids):
        warn(console, notice)
    text = render_prompt(policy.tokenizer, first.question, policy.prompt)
    show_first_prompt(console, text, first.token_ids)
    if policy.automaton.inside_thought:
        console.print("prompts end with an open <think>: answers count from </think> on.")


def ask(this: Evaluation, done: Responses, console: Console) -> tuple[Responses, dict[str, Any]]:
    """Sample what is not done yet, in one stream over all benchmarks; returns all, and the cost.

    Args:
      done: what process 0 has in its journal.
    """
    settings, policy, items = this.settings, this.policy, this.items
    there = _there(this, done)
    asks = make_requests(items, settings.greedy, there)
    progress = Progress(console, items, there.size, int(there.sum()))
    responses: Responses = {}
    for number, item in enumerate(items):
        for sample in np.flatnonzero(there[number]).tolist():
            if (found := done.get(place := _place(item, sample))) is not None:
                responses[place] = found
                progress.known(item, found)
    if not asks:
        return responses, {}
    if responses:
        console.print(f"goes on after {len(responses):,} of {there.size:,} responses.")
    # Nothing is trained, so no float32 is kept where everything is computed in bfloat16.
    params = load_params(policy, this.config, masters=False)
    sampler = sampler_of(policy, this.config, settings)
    vocabulary = token_bytes(policy.tokenizer)
    key = jax.random.fold_in(policy.key, EVALUATION_STREAM)
    with Journal(this.folder, enabled=distributed.is_main()) as journal, progress:
        stream = sampler.stream(sampler.load(params), (a.request for a in asks), key)
        for completion in stream:
            wanted = asks[completion.request]
            item, sample = items[wanted.item], wanted.samples[completion.response]
            response = read_response(
                vocabulary,
                completion,
                item.prompt.question,
                rule=settings.rule,
                inside_thought=policy.automaton.inside_thought,
            )
            responses[place := _place(item, sample)] = response
            journal.add(place, response)
            progress.add(item, response)
    cost = progress.cost(stream.occupancy)
    console.print(cost_line(cost))
    return responses, cost


def _place(item: Item, sample: int) -> Place:
    return Place(item.set.questions.name, item.prompt.question.id, sample)


def _there(this: Evaluation, done: Responses) -> Bool[np.ndarray, "n k"]:
    """Of each question and sample, whether process 0 has it; the same in all processes."""
    shape = len(this.items), this.settings.samples
    mine = [_place(item, k) in done for item in this.items for k in range(shape[1])]
    packed = np.packbits(np.array(mine, bool)).tobytes().hex()
    said = bytes.fromhex(agreement.of_main(f"responses {this.part}", packed))
    bits = np.unpackbits(np.frombuffer(said, np.uint8), count=shape[0] * shape[1])
    return bits.astype(bool).reshape(shape)


def scored_sets(this: Evaluation, responses: Responses) -> list[Scored]:
    """The sets with all responses to them."""
    found = []
    for asked in this.sets:
        name, samples = asked.questions.name, range(this.settings.samples)
        rows = [
            [responses[Place(name, prompt.question.id, k)] for k in samples]
            for prompt in asked.prompts
        ]
        written = samples_of(
            asked, rows, this.policy.tokenizer, this.config.prompt, generation(this)
        )
        found.append(Scored(asked.facts, written))
    return found


def generation(this: Evaluation) -> dict[str, Any]:
    """What decides a response beside its prompt."""
    rollout, settings = this.config.rollout, this.settings
    return {
        "temperature": settings.temperature,
        "top_p": rollout.top_p,
        "top_k": rollout.top_k,
        "max_new_tokens": rollout.max_new_tokens,
        "seed": settings.seed,
    }


def head_of(this: Evaluation, cost: dict[str, Any]) -> Head:
    """What the results say of the model and how it was asked."""
    policy, identity = this.policy, this.identity
    versions = {name.removeprefix(VERSIONS): value for name, value in noted(identity).items()}
    return Head(
        model=this.subject.label,
        prompt={"name": this.wording.name, **wording.fields_heeded(this.config.prompt)},
        sampling={"samples": this.settings.samples, **generation(this)},
        rule=this.settings.rule,
        versions=versions,
        details={
            "family": policy.model.family,
            "parameters": count_parameters(policy.model),
            "weights": identity["weights of the model"],
            "revision": this.subject.revision,
            "compute_dtype": policy.compute.dtype.name,
            "inside_thought": policy.automaton.inside_thought,
        },
        # Where it ran has no part in the results.
        cost=cost
        | {
            "mesh": "x".join(str(size) for size in policy.mesh.shape.values()),
            "processes": jax.process_count(),
        },
    )
