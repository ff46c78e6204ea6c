"""A long stream through a small Llama: busy slots, flat memory, and the tokens of `sample`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import mesh_like

from alphamed_jax.benchmark.setup import SHAPES
from alphamed_jax.model import modules
from alphamed_jax.rl.distribution import Sampling
from alphamed_jax.rl.language_model import Transformer
from alphamed_jax.rl.requests import Request
from alphamed_jax.rl.sampler import Sampler
from alphamed_jax.rl.sampler_run import SamplerConfig

MODEL = SHAPES["small"]
WIDEST, LONGEST, SLOTS = 96, 384, 64
KEY = jax.random.key(3)


def sampler(**changes):
    settings = {"max_prompt": WIDEST, "max_new_tokens": LONGEST, "slots": SLOTS} | changes
    config = SamplerConfig(
        Transformer(MODEL, jnp.dtype("float32")),
        Sampling(),
        (),
        prompts=16,
        group_size=1,
        **settings,
    )
    return Sampler(config, mesh_like("1x1"))


def requests(count):
    """Prompts of 8 to 96 tokens; lengths with a median of 64 and a long tail, as far as 384."""
    rng = np.random.default_rng(0)
    limits = np.clip(rng.lognormal(np.log(LONGEST / 6), 0.8, size=count), 1, LONGEST).astype(int)
    for number in range(count):
        prompt = rng.integers(0, MODEL.vocab_size, size=rng.integers(8, WIDEST + 1)).tolist()
        yield Request(prompt, [number], limits=[int(limits[number])])


@pytest.mark.slow
def test_two_thousand_requests_keep_the_slots_busy_and_sample_what_a_batch_does():
    # Given a stream of requests of all lengths, in caches that grow and slots that get fewer,
    this = sampler()
    weights = this.load(modules.init(MODEL, jax.random.key(0)))
    held, found = [], {}
    stream = this.stream(weights, requests(2000), KEY)
    for completion in stream:
        found[completion.sequence] = completion
        if len(found) % 100 == 0:
            held.append(sum(x.nbytes for x in jax.live_arrays()))
    # then all of them come, the slots are busy nine tenths of the time, the last tail included,
    assert sorted(found) == list(range(2000))
    assert stream.occupancy.busy >= 0.9
    # no more is held as time goes on, but for what a cache grows by,
    assert max(held[10:]) <= 1.02 * max(held[:10])
    # and each response is what a batch of its own gives, but for flips by rounding: rare ones.
    some = [r for r in requests(2000) if r.sequences[0] % 37 == 0][:48]
    alone, _ = sampler(slots=None).sample(weights, some, KEY)
    same = [
        np.asarray(alone.tokens)[row, : found[r.sequences[0]].length].tolist()
        == found[r.sequences[0]].tokens.tolist()
        for row, r in enumerate(some)
    ]
    assert np.mean(same) >= 0.95
