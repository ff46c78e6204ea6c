"""How far bfloat16 turns a gradient, beside the same figure of transformers.

pytest -m torch -s tests/rl/test_precision_beside_torch.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import gathered
from precision_cases import GROUP as OF_A_PROMPT
from precision_cases import MODELS, compiled_gradient, errors, gradient, text, weights

from alphamed_jax import embedded
from alphamed_jax.config import load_config
from alphamed_jax.model import hf
from alphamed_jax.model.hf_layout import by_key, tensors
from alphamed_jax.rl.batch import plan_batch
from alphamed_jax.rl.loss import Totals
from alphamed_jax.rl.rollout import generate
from alphamed_jax.rl.step import score_rewards
from alphamed_jax.training import prepare

PROMPTS, GROUP = 16, 8


def transformers_gradient(torch, folder, model, rows, dtype):
    """Gradient of -sum(weight x log-probability) over whole rows, one array a kind of weight."""
    from transformers import AutoModelForCausalLM

    tokens, attended, token_weights = map(torch.tensor, rows)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(dtype)
    logits = network(input_ids=tokens, attention_mask=attended).logits[:, :-1].float()
    logprobs = torch.log_softmax(logits, -1).gather(-1, tokens[:, 1:, None])[..., 0]
    (-(token_weights[:, 1:] * logprobs).sum()).backward()
    named = {name: p.grad.float().numpy() for name, p in network.named_parameters()}
    found: dict = {}
    for tensor in tensors(model):
        back = [tensor.order.index(axis) for axis in range(len(tensor.order))]
        array = named[tensor.name].reshape(tensor.split_shape).transpose(back)
        found.setdefault(tensor.key, []).append(array)
    return {k: v[0] if k in ("embed", "norm", "head") else np.stack(v) for k, v in found.items()}


@pytest.mark.torch
@pytest.mark.parametrize("by_reward", [False, True])
def test_bfloat16_costs_no_more_here_than_in_transformers(by_reward):
    torch = pytest.importorskip("torch", reason="compares with transformers on torch")
    # Given responses of the quickstart's model, with advantages at random or by the answer key,
    run = prepare(load_config(embedded.CONFIG))
    model, params = hf.load(run.policy.folder, run.policy.mesh, dtype=np.float32)
    objective = run.policy.objective(run.config)
    questions = run.train[:PROMPTS]
    prompts = [question.token_ids for question in questions]
    drawn = generate(
        model,
        params,
        prompts,
        group_size=GROUP,
        max_new_tokens=24,
        stop_ids=run.policy.stop_ids,
        key=jax.random.key(0),
    )
    if by_reward:
        with jax.set_mesh(run.policy.mesh):
            scored = score_rewards(run.policy, run.config, drawn, questions)
        advantages = scored.advantages.reshape(PROMPTS, GROUP)
    else:
        advantages = np.random.default_rng(0).normal(size=(PROMPTS, GROUP)).astype(np.float32)
    lengths = np.asarray(drawn.lengths).reshape(PROMPTS, GROUP)
    planned = plan_batch(
        np.asarray(drawn.prompt_lengths),
        lengths,
        advantages,
        micro_batch=64,
        data_shards=1,
        only_effective=True,
    )
    batch = gathered(drawn, lengths, advantages, planned)
    totals = Totals(jnp.float32(planned.tokens), jnp.float32(planned.sequences))

    def ours(dtype):
        as_ = objective._replace(compute=objective.compute._replace(dtype=jnp.dtype(dtype)))
        with jax.set_mesh(run.policy.mesh):
            grads, _ = compiled_gradient(params, batch, jnp.int32(planned.count), totals, as_)
        return {key: np.asarray(leaf) for key, leaf in by_key(grads).items()}

    width = max(map(len, prompts)) + lengths.max()
    rows = [np.zeros((PROMPTS * GROUP, width), kind) for kind in (np.int64, np.int64, np.float32)]
    for b, length in enumerate(lengths.reshape(-1)):
        prompt = prompts[b // GROUP]
        end = len(prompt) + length
        rows[0][b, :end] = [*prompt, *np.asarray(drawn.tokens)[b, :length]]
        rows[1][b, :end] = 1
        rows[2][b, len(prompt) : end] = advantages.reshape(-1)[b] / lengths.sum()
    exact = ours("float32")
    # when both compute its gradient in both dtypes,
    theirs = transformers_gradient(torch, run.policy.folder, model, rows, torch.float32)
    assert max(errors(theirs, exact).values()) < 1e-3
    here = errors(ours("bfloat16"), exact)
    there = errors(
        transformers_gradient(torch, run.policy.folder, model, rows, torch.bfloat16), exact
    )
    print(f"\nadvantages {'by the answer key' if by_reward else 'at random'}: % of the leaf's norm")
    for key in exact:
        print(f"{key:16s} ours {100 * here[key]:6.2f}  transformers {100 * there[key]:6.2f}")
    # then in bfloat16 ours is not further from float32 than theirs.
    assert all(here[key] < 1.25 * there[key] for key in exact), (here, there)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_neither_shape_nor_chunks_of_logits_make_bfloat16_dearer_than_in_transformers(
    name, tmp_path
):
    torch = pytest.importorskip("torch", reason="compares with transformers on torch")
    # Given the fixed batch of `test_precision`, for a model without and with biases,
    hf.save(tmp_path / "model", MODELS[name], weights(name))
    prompts, responses, advantages = text()
    tokens = np.concatenate([np.repeat(prompts, OF_A_PROMPT, axis=0), responses], 1).astype(
        np.int64
    )
    share = np.zeros(tokens.shape, np.float32)
    share[:, prompts.shape[1] :] = advantages.reshape(-1, 1) / responses.size
    rows = tokens, np.ones_like(tokens), share
    exact = gradient(name, "float32")
    theirs = transformers_gradient(torch, tmp_path / "model", MODELS[name], rows, torch.float32)
    assert max(errors(theirs, exact).values()) < 1e-3
    there = transformers_gradient(torch, tmp_path / "model", MODELS[name], rows, torch.bfloat16)
    there = errors(there, exact)
    # when the logits exist in long chunks or in short ones,
    for chunk in (4096, 256, 64):
        here = errors(gradient(name, "bfloat16", logits_chunk=chunk), exact)
        print(f"\n{name}, chunks of {chunk}: % of the leaf's norm, ours / transformers")
        print("  ".join(f"{k} {100 * here[k]:.2f} / {100 * there[k]:.2f}" for k in exact))
        # then ours is not further from float32 than theirs, but for chance.
        assert all(here[key] < 1.25 * there[key] + 0.005 for key in exact), (here, there)
