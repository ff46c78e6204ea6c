"""The shipped model and tokenizer, and the script that makes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import AutoTokenizer

from alphamed_jax import embedded
from alphamed_jax.config import load_config
from alphamed_jax.data.prompts import encode_prompt, prompt_text
from alphamed_jax.errors import UserError
from alphamed_jax.model import hf, network
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.dense import causal_attention
from alphamed_jax.quickstart import corpus, make
from alphamed_jax.quickstart.measure import Measure
from alphamed_jax.quickstart.pretrain import INDUCTION, PretrainConfig, init, model_config, pretrain
from alphamed_jax.quickstart.questions import build

CONFIG = load_config(embedded.CONFIG)
TRAIN, HELDOUT = build()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(embedded.MODEL, local_files_only=True)


@pytest.fixture(scope="module")
def model():
    return hf.load(embedded.MODEL)


def test_the_shipped_folder_stays_under_eight_megabytes():
    folder = embedded.CONFIG.parent
    files = [p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert sum(p.stat().st_size for p in files) < 8_000_000


def test_the_network_fits_a_tensor_axis_of_eight(model):
    config, _ = model
    assert config.num_heads % 8 == 0
    assert config.num_kv_heads in (4, 8)
    assert not [n for n in (config.hidden_size, config.intermediate_size) if n % 64]
    assert config.vocab_size % 64 == 0
    assert network.count_parameters(config) < 1_000_000


def test_the_shipped_network_is_the_one_that_make_makes(model):
    assert model[0] == model_config(make.VOCABULARY)


def test_the_shipped_tokenizer_is_the_one_that_make_makes(tokenizer):
    assert make.make_tokenizer(CONFIG.prompt).get_vocab() == tokenizer.get_vocab()


def test_the_tokenizer_has_the_size_of_the_vocabulary_and_its_special_tokens(tokenizer, model):
    assert len(tokenizer) == model[0].vocab_size
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert len(special) == 3
    assert None not in special


def test_every_prompt_and_answer_round_trips_through_the_tokenizer(tokenizer):
    texts = [
        prompt_text(question, CONFIG.prompt) + answer(question)
        for question in TRAIN + HELDOUT
        for answer in (corpus.answer_in_steps, corpus.answer_at_once)
    ]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert [tokenizer.decode(row, clean_up_tokenization_spaces=False) for row in ids] == texts


@pytest.mark.parametrize(
    "text", ["naïve  β-blocker", " (A", "x = (B)\\n\\boxed{ C }", "\n\n a . b"]
)
def test_any_other_text_round_trips_too(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("letter", "ABCD")
def test_a_letter_is_one_token_in_an_option_and_one_in_the_box(tokenizer, letter):
    def pieces(text):
        ids = tokenizer.encode(text, add_special_tokens=False)
        return [tokenizer.decode([i]) for i in ids]

    assert pieces(f"COPD ({letter})\n") == ["COPD", f" ({letter})", "\n"]
    assert pieces(f"COPD ({letter}). \\boxed{{{letter}}}") == [
        *("COPD", f" ({letter})", ". ", "\\boxed{", letter, "}"),
    ]


def test_prompt_and_answer_are_tokenised_the_same_together_and_apart(tokenizer):
    for question in HELDOUT:
        answer = corpus.answer_in_steps(question)
        apart = encode_prompt(tokenizer, question, CONFIG.prompt)
        apart = apart + tokenizer.encode(answer, add_special_tokens=False)
        assert tokenizer.encode(prompt_text(question, CONFIG.prompt) + answer) == apart


def test_prompts_and_answers_fit_the_limits_of_the_configuration(tokenizer):
    for question in TRAIN + HELDOUT:
        assert len(encode_prompt(tokenizer, question, CONFIG.prompt)) <= CONFIG.prompt.max_tokens
        answer = tokenizer.encode(corpus.answer_in_steps(question), add_special_tokens=False)
        assert len(answer) + 1 <= CONFIG.rollout.max_new_tokens


def test_the_base_has_both_habits_and_steps_are_the_better_one(tokenizer, model):
    measure = Measure(tokenizer, model[0], CONFIG.prompt, HELDOUT, PretrainConfig.length)
    figures = measure(model[1])
    assert figures["in steps"] >= make.ENOUGH
    assert figures["at once"] < 0.5
    assert 0.35 <= figures["step share"] <= 0.5


def test_a_few_steps_of_pretraining_lower_the_loss_and_repeat_by_seed(tokenizer):
    config = ModelConfig(len(tokenizer), 32, 64, 2, 4, 4, 8, tie_embeddings=True)
    settings = PretrainConfig(
        steps=20, drill_steps=0, drill_share=0.0, warmup=5, learning_rate=1e-2, report_every=10
    )

    def run(seed):
        losses = []
        params = pretrain(
            tokenizer,
            config,
            CONFIG.prompt,
            settings,
            seed,
            lambda step, loss, left, params: losses.append(loss),
            chunk=10,
        )
        return losses, params

    losses, params = run(0)
    again, same = run(0)
    assert len(losses) == 2
    assert losses[-1] < losses[0]
    assert losses == again
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_untrained_network_already_looks_up_what_followed_the_same_token():
    # Given random tokens, of which the last one also stands at place 9
    config = model_config(256)
    params = init(config, jax.random.key(0))
    rng = np.random.default_rng(0)
    rows = np.stack([rng.permutation(256)[:25] for _ in range(50)])
    rows[:, 24] = rows[:, 9]
    tokens, positions = jnp.asarray(rows, jnp.int32), jnp.broadcast_to(jnp.arange(25), (50, 25))
    # When the last one attends
    seen = []

    def attend(q, k, v):
        scores = jnp.einsum("bnh,bsnh->bns", q[:, -1], k) * config.head_dim**-0.5
        seen.append(jax.nn.softmax(scores)[:, :INDUCTION].mean(axis=(0, 1)))
        return causal_attention(q, k, v)

    x = network.embed(config, params, tokens, jnp.float32)
    rope = network.rope_table(config, positions)
    for number in range(2):
        layer_params = {name: value[number] for name, value in params["layers"].items()}
        used = network.gathered(config, layer_params, jnp.float32)
        x, _ = network.block(config, used, x, rope, attend)
    # Then layer 0 sees the token before, and layer 1 the one that followed at place 10
    assert seen[0][23] > 0.8
    assert int(seen[1].argmax()) == 10
    assert seen[1][10] > 3 / 25


@pytest.mark.slow
def test_make_writes_questions_and_a_loadable_model(tmp_path):
    make.make(make.Arguments(output=str(tmp_path), steps=1))
    config, _ = hf.load(tmp_path / "model")
    assert config == model_config(make.VOCABULARY)
    assert (tmp_path / "questions_train.jsonl").read_bytes() == embedded.TRAIN.read_bytes()
    loaded = AutoTokenizer.from_pretrained(tmp_path / "model", local_files_only=True)
    assert len(loaded) == make.VOCABULARY


@pytest.mark.parametrize("steps", [0, -1])
def test_make_refuses_a_number_of_steps_that_trains_nothing(tmp_path, steps):
    with pytest.raises(UserError, match="--steps"):
        make.make(make.Arguments(output=str(tmp_path), steps=steps))


def test_make_refuses_a_file_as_output(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output"):
        make.make(make.Arguments(output=str(tmp_path / "file")))
