"""One fingerprint says what a run is; whatever differs is found and named."""

import dataclasses
import itertools
import json
import threading

import jax
import pytest
from helpers import mesh_like
from tiny_run import tiny_config, write_model

from alphamed_jax.config import PromptConfig
from alphamed_jax.data.prompts import encode_questions
from alphamed_jax.data.questions import Question
from alphamed_jax.data.tokenizer import load_tokenizer
from alphamed_jax.errors import UserError
from alphamed_jax.output import fingerprint, record
from alphamed_jax.randomness import random_key
from alphamed_jax.runtime import agreement
from alphamed_jax.runtime.agreement import differing


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_model(tmp_path_factory.mktemp("model") / "model"))


def asked(count=5):
    return [
        Question(f"q{i}", f"Number {i}?", ("one", "two"), "AB"[i % 2], "t") for i in range(count)
    ]


def of(tokenizer, questions):
    encoded, _ = encode_questions(tokenizer, questions, PromptConfig())
    return fingerprint.of_questions("training", encoded)


LOST = ["number of training questions (5, now 4)", "prompts of the training questions"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda qs: qs, []),
        (lambda qs: qs[:-1], LOST),
        (lambda qs: qs[::-1], ["order of the training questions"]),
        (
            lambda qs: [dataclasses.replace(qs[0], answer="B"), *qs[1:]],
            ["answers to the training questions"],
        ),
        (
            lambda qs: [dataclasses.replace(qs[0], stem="Number 0!"), *qs[1:]],
            ["prompts of the training questions"],
        ),
        (
            lambda qs: [dataclasses.replace(qs[0], id="other"), *qs[1:]],
            ["ids of the training questions"],
        ),
        # Two questions that exchange their answers are re-keyed, though all letters are as before.
        (
            lambda qs: [
                dataclasses.replace(qs[0], answer="B"),
                dataclasses.replace(qs[1], answer="A"),
                *qs[2:],
            ],
            ["answers to the training questions"],
        ),
    ],
)
def test_what_happened_to_the_questions_is_named(tokenizer, change, said):
    before, after = of(tokenizer, asked()), of(tokenizer, change(asked()))

    assert differing(before, after, now="now ") == said


def changed_template(tokenizer):
    tokenizer.chat_template = "{{ messages[0]['content'] }}"


def added_token(tokenizer):
    tokenizer.add_tokens(["<aside>"])


def other_rules(tokenizer):
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed_template, {"chat template of the tokenizer"}),
        (other_rules, {"rules of the tokenizer"}),
        (
            added_token,
            {
                "vocabulary of the tokenizer",
                "rules of the tokenizer",
                "special tokens of the tokenizer",
            },
        ),
    ],
)
def test_what_happened_to_the_tokenizer_is_named(tmp_path, change, said):
    tokenizer = load_tokenizer(write_model(tmp_path / "model"))
    before = fingerprint.of_tokenizer(tokenizer, (256,))
    tokenizer(["filling up", "is a state that calls leave behind"], padding=True, truncation=True)
    assert fingerprint.of_tokenizer(tokenizer, (256,)) == before

    change(tokenizer)

    assert set(differing(before, fingerprint.of_tokenizer(tokenizer, (256,)))) == said
    assert differing(before, fingerprint.of_tokenizer(tokenizer, (256, 7)))[-1] == (
        "stop ids ([256], [256, 7])"
    )


def test_the_random_implementation_and_the_platform_are_named():
    mesh = mesh_like("8x1")
    before = fingerprint.of_numbers(random_key(0), "float32", mesh)
    other = fingerprint.of_numbers(jax.random.key(0, impl="rbg"), "bfloat16", mesh)

    assert differing(before, other) == [
        "random implementation ('threefry2x32', 'rbg')",
        "precision of the computation ('float32', 'bfloat16')",
    ]
    assert before["platform"] == "cpu"


def test_the_key_of_a_run_does_not_depend_on_the_environment():
    wanted = jax.random.key_data(random_key(3)).tolist()
    with jax.default_prng_impl("rbg"):
        assert jax.random.key_data(random_key(3)).tolist() == wanted


def test_a_fingerprint_survives_the_json_of_checkpoints(tokenizer, tmp_path):
    made = of(tokenizer, asked()) | fingerprint.of_tokenizer(tokenizer, (1, 2))
    made |= fingerprint.of_settings(tiny_config(tmp_path, tmp_path / "run"))

    assert json.loads(json.dumps(made)) == made


def saved_with(config, **identity):
    return record.cursor(config, 3, 12, {}, identity)


def test_another_fingerprint_is_refused_on_resume_and_other_versions_are_told(tmp_path):
    config = tiny_config(tmp_path, tmp_path / "run")
    saved = saved_with(config, **{"stop ids": [1], "versions.jax": "0.1"})

    with pytest.raises(
        UserError, match=r"^place holds a run that differs in stop ids \(\[1\], now"
    ):
        record.check_resumable("place", saved, config, {"stop ids": [1, 2]})
    [note] = record.check_resumable(
        "place", saved, config, {"stop ids": [1], "versions.jax": "0.2"}
    )
    assert note.startswith("jax ('0.1', now '0.2') changed since the checkpoint")


def test_a_checkpoint_without_a_fingerprint_is_taken_with_a_word(tmp_path):
    config = tiny_config(tmp_path, tmp_path / "run")

    [note] = record.check_resumable("place", record.cursor(config, 3, 12, {}), config, {"a": 1})

    assert "kept no fingerprint" in note


def test_a_newer_commit_of_the_hub_is_refused_with_the_way_to_go_on(tmp_path):
    ours = tiny_config(tmp_path, tmp_path / "run", model="some/model", model_revision="a" * 40)
    saved = record.cursor(ours, 3, 12, {})
    moved = dataclasses.replace(ours, model_revision="b" * 40)

    with pytest.raises(UserError, match=f"--model-revision {'a' * 40} goes on"):
        record.check_resumable("place", saved, moved)


class Waiting:
    """A key-value store that several threads share, as jax.distributed's does for processes."""

    def __init__(self):
        self.values, self.changed = {}, threading.Condition()

    def key_value_set(self, key, value):
        with self.changed:
            self.values[key] = value
            self.changed.notify_all()

    def blocking_key_value_get(self, key, timeout_in_ms):
        with self.changed:
            if not self.changed.wait_for(lambda: key in self.values, timeout_in_ms / 1000):
                raise RuntimeError("DEADLINE_EXCEEDED: not there yet")
            return self.values[key]


def compared(prints):
    """What each of several processes says to the fingerprints of all; empty: it goes on."""
    store, said = Waiting(), [""] * len(prints)

    def one(process):
        try:
            agreement.compare("run", prints[process], store, process, len(prints))
        except UserError as error:
            said[process] = str(error)

    threads = [threading.Thread(target=one, args=[n]) for n in range(len(prints))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return said


def test_processes_that_are_alike_go_on():
    assert compared([{"settings.seed": 0, "stop ids": (1, 2)}] * 3) == ["", "", ""]


def test_every_process_says_what_differs():
    prints = [{"settings.seed": 0, "weights": "sha256:1"}] * 2 + [
        {"settings.seed": 1, "weights": "sha256:2"}
    ]

    assert set(compared(prints)) == {
        "processes 0 and 2 of this run differ in seed (0, 1), weights; give all of them the same "
        "command and the same files."
    }
    for prints in itertools.permutations([{"a": 1}, {"a": 2}, {"a": 2}]):
        assert all("differ in a (" in said for said in compared(list(prints)))


def test_settings_that_belong_to_a_process_are_not_compared(tmp_path):
    ours = tiny_config(tmp_path, tmp_path / "run")
    theirs = dataclasses.replace(
        ours, output="elsewhere", model="my/copy", data=("my.jsonl",), process_id=1, config="c.yaml"
    )
    other = dataclasses.replace(
        ours, mesh="2x2", optimizer=dataclasses.replace(ours.optimizer, b1=0.5)
    )
    same = fingerprint.of_settings(ours)

    assert differing(same, fingerprint.of_settings(theirs)) == []
    assert differing(same, fingerprint.of_settings(other)) == [
        "mesh ('8x1', '2x2')",
        "optimizer.b1 (0.9, 0.5)",
    ]
