"""A fixed batch and its gradient in any compute dtype, for Llama and Qwen2 shapes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from helpers import TINY, gathered, make_objective, tiny_params

from alphamed_jax.model.hf_layout import by_key
from alphamed_jax.model.mesh import data_shards, mesh_of
from alphamed_jax.rl.batch import plan_batch
from alphamed_jax.rl.loss import Totals
from alphamed_jax.rl.trajectories import Trajectories
from alphamed_jax.rl.update import batch_gradient

MODELS = {
    "llama": dataclasses.replace(TINY, tie_embeddings=False),
    "llama_tied": TINY,
    "qwen2": dataclasses.replace(TINY, family="qwen2", tie_embeddings=False),
    "qwen3": dataclasses.replace(TINY, family="qwen3"),
}
PROMPTS, GROUP, PROMPT, LENGTH = 8, 4, 16, 96


@functools.cache
def weights(name):
    """Random weights; biases and norms, too, are not what they start as."""
    config = MODELS[name]
    params = jax.jit(functools.partial(tiny_params, config, 1, 3.0))()
    rng = np.random.default_rng(2)

    def moved(x):
        return x + np.float32(0.1 * rng.normal(size=x.shape))

    layers = {k: moved(w) if "norm" in k or "bias" in k else w for k, w in params["layers"].items()}
    # Norms of queries and keys stay near 1: three times both would make scores nine times as sharp.
    layers |= {k: moved(jnp.ones_like(w)) for k, w in layers.items() if k in ("q_norm", "k_norm")}
    # Numbers that bfloat16 holds: what is measured is the arithmetic, not the cast.
    exact = {**params, "norm": moved(params["norm"]), "layers": layers}
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), exact)


def text():
    """Prompts [P Tp], responses [P·G T] in which few words are frequent, and a weight for each."""
    rng = np.random.default_rng(3)
    share = 1.0 / np.arange(1, TINY.vocab_size + 1)
    share /= share.sum()
    prompts = rng.choice(TINY.vocab_size, size=(PROMPTS, PROMPT), p=share)
    responses = rng.choice(TINY.vocab_size, size=(PROMPTS * GROUP, LENGTH), p=share)
    advantages = rng.normal(size=(PROMPTS, GROUP)).astype(np.float32)
    return prompts.astype(np.int32), responses.astype(np.int32), advantages


compiled_gradient = jax.jit(batch_gradient, static_argnums=4)


def gradient(name, dtype, params=None, micro_batch=32, **compute):
    """Our gradient of the batch, float32, one array for each kind of weight."""
    params = weights(name) if params is None else params
    prompts, responses, advantages = text()
    rows, lengths = len(responses), np.full((PROMPTS, GROUP), LENGTH)
    trajectories = Trajectories(
        prompt_tokens=jnp.asarray(prompts),
        prompt_lengths=jnp.full(PROMPTS, PROMPT),
        tokens=jnp.asarray(responses),
        lengths=jnp.full(rows, LENGTH),
        logprobs=jnp.zeros((rows, LENGTH)),
        finished=jnp.ones(rows, bool),
    )
    mesh = mesh_of(params)
    planned = plan_batch(
        np.full(PROMPTS, PROMPT),
        lengths,
        advantages,
        micro_batch=micro_batch,
        data_shards=data_shards(mesh),
        only_effective=True,
    )
    settings = make_objective(MODELS[name], **compute)
    settings = settings._replace(compute=settings.compute._replace(dtype=jnp.dtype(dtype)))
    totals = Totals(jnp.float32(planned.tokens), jnp.float32(planned.sequences))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    batch = gathered(jax.device_put(trajectories, everywhere), lengths, advantages, planned)
    with jax.set_mesh(mesh):
        grads, _ = compiled_gradient(params, batch, jnp.int32(planned.count), totals, settings)
    return {key: np.asarray(leaf) for key, leaf in by_key(grads).items()}


def errors(found, expected):
    """Per kind of weight: length of the difference over length of the expected gradient."""
    return {
        key: float(np.linalg.norm(found[key] - leaf) / np.linalg.norm(leaf))
        for key, leaf in expected.items()
    }
