"""Responses of the tiny model that several tests look at; sampled once in a test session."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from helpers import TINY, on_mesh, tiny_params

from alphamed_jax.model import network
from alphamed_jax.rl.distribution import Sampling
from alphamed_jax.rl.rollout import generate
from alphamed_jax.rl.trajectories import Trajectories

PROMPTS = ([1, 2, 3], [4, 5, 6, 7, 8, 9], [10] * 20, [11, 0, 12])
GROUP = 4
ROWS = len(PROMPTS) * GROUP
LENGTH = 24
STOPS = (5, 9, 17, 100, 233)
NO_STOP = (TINY.vocab_size,)
SEED = 3


@functools.cache
def weights():
    """Random weights of the tiny model; compiled at once, which is quicker than op by op."""
    return jax.jit(tiny_params)()


def padded_stops(stop_ids):
    """Repeat stop ids up to one number of them, so that tests share a compiled program."""
    return [*stop_ids, *[stop_ids[0]] * (ROWS - len(stop_ids))]


def sample(params=None, prompts=PROMPTS, *, stop_ids=STOPS, sampling=None, seed=SEED, **changes):
    """`generate` with the arguments that most tests share."""
    sampling = sampling or Sampling()
    settings = {
        "group_size": GROUP,
        "max_new_tokens": LENGTH,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "stop_ids": padded_stops(stop_ids),
        "key": jax.random.key(seed),
    }
    return generate(TINY, weights() if params is None else params, prompts, **settings | changes)


@functools.cache
def split_weights(mesh):
    return on_mesh(weights(), mesh)


@functools.cache
def sampled(mesh="1x1", stop_ids=STOPS):
    """The responses to PROMPTS, sampled on a mesh."""
    return sample(weights() if mesh == "1x1" else split_weights(mesh), stop_ids=stop_ids)


def whole_rows(trajectories: Trajectories):
    """Each response after its own copy of the prompt, and where the prediction of it starts."""
    tokens = np.asarray(trajectories.tokens)
    rows = np.zeros((len(tokens), max(map(len, PROMPTS)) + tokens.shape[1]), np.int32)
    starts = np.array([len(PROMPTS[b // GROUP]) - 1 for b in range(len(tokens))])
    for b, start in enumerate(starts):
        rows[b, : start + 1] = PROMPTS[b // GROUP]
        rows[b, start + 1 : start + 1 + tokens.shape[1]] = tokens[b]
    return rows, starts


@jax.jit
def response_logits(params, rows, starts):
    """Logits [B T V] that predict the responses, by the plain forward pass over whole rows."""
    at = starts[:, None] + jnp.arange(LENGTH)
    return jnp.take_along_axis(network.logits(TINY, params, rows), at[..., None], axis=1)


def assert_same_samples(got, expected, rows=slice(None)):
    for name in ("tokens", "lengths", "finished"):
        np.testing.assert_array_equal(
            getattr(got, name), getattr(expected, name)[rows], err_msg=name
        )
    np.testing.assert_allclose(got.logprobs, expected.logprobs[rows], atol=1e-4)
