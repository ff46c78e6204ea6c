"""A training run before its first step: all that is read, checked and decided."""

import dataclasses
from collections import Counter
from typing import NamedTuple

from alphamed_jax.config import Config
from alphamed_jax.curation.manifest import Manifest, manifests_of
from alphamed_jax.data.draws import Draws, make_draws
from alphamed_jax.data.prompts import Prompt, encode_questions
from alphamed_jax.data.sources import load_all
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation import in_training
from alphamed_jax.evaluation.ask import AskedSet
from alphamed_jax.evaluation.best import choose_measure
from alphamed_jax.model.hf_identity import weights_digest
from alphamed_jax.output import fingerprint
from alphamed_jax.output.revisions import with_commits
from alphamed_jax.rl.batch import check_micro_batch
from alphamed_jax.rl.buckets import bucket
from alphamed_jax.rl.policy import Policy, open_policy, with_adapter
from alphamed_jax.runtime.agreement import Fingerprint


class Run(NamedTuple):
    """Everything that is decided before the first step."""

    config: Config
    policy: Policy
    train: list[Prompt]
    heldout: list[Prompt]
    benchmarks: list[AskedSet]
    draws: Draws
    """The training questions as steps get them, before the first one."""
    rows: int
    """Rows of the data: those of `train`, of `heldout` and the dropped ones together."""
    dropped: dict[str, int]
    """Reason -> rows that are neither trained on nor held out."""
    revisions: dict[str, str | None]
    """Source that came from the hub -> commit."""
    manifests: dict[str, Manifest]
    """File of the data -> how it was picked."""
    measure: str | None
    """What the best step is told by; None: there is none."""
    identity: Fingerprint
    """What the run is; the same in all processes and after a resume."""


def prepare(config: Config) -> Run:
    """Check all input before anything is written: policy, questions, prompts."""
    policy = open_policy(config)
    config = with_adapter(config, policy.model)
    check_micro_batch(config.update.micro_batch, policy.update_mesh, bool(config.update.mesh))
    questions = load_all(
        config.data,
        config.eval.questions,
        config.seed,
        config.data_revisions,
        allow_test_data=config.allow_test_data,
    )
    if not questions.train:
        why = ", ".join(f"{count:,} {reason}" for reason, count in questions.dropped.items())
        raise UserError(f"no question is left to train on, of {questions.rows:,} rows: {why}.")
    train, too_long = encode_questions(policy.tokenizer, questions.train, policy.prompt)
    heldout, unasked = encode_questions(policy.tokenizer, questions.heldout or (), policy.prompt)
    benchmarks = in_training.benchmark_sets(policy, config)
    width = bucket(max(len(question.token_ids) for question in (*train, *heldout)))
    policy = dataclasses.replace(policy, prompt_width=width)
    config = with_commits(config, questions.revisions)
    return Run(
        config=config,
        policy=policy,
        train=train,
        heldout=heldout,
        benchmarks=benchmarks,
        draws=make_draws(config, train, policy.tokenizer, width),
        rows=questions.rows,
        dropped=dict(Counter(questions.dropped) + Counter(too_long) + Counter(unasked)),
        revisions=questions.revisions,
        manifests=manifests_of(config.data),
        measure=choose_measure(
            config.eval, len(heldout), [one.questions.name for one in benchmarks]
        ),
        identity=fingerprint.of_settings(config)
        | fingerprint.of_model(policy.model, weights_digest(policy.folder), config.model_revision)
        | fingerprint.of_adapter(config.adapter)
        | fingerprint.of_tokenizer(policy.tokenizer, policy.stop_ids)
        | fingerprint.of_questions("training", train)
        | fingerprint.of_questions("held-out", heldout)
        | fingerprint.of_numbers(policy.key, policy.compute.dtype.name, policy.mesh),
    )
