"""The least work of a step: closed forms against counting it out."""

import numpy as np

from alphamed_jax.benchmark import work
from alphamed_jax.benchmark.machine import Clock, measure_rates, peak_memory_mb
from alphamed_jax.model.config import ModelConfig

CONFIG = ModelConfig(50, 16, 24, 2, 4, 2, 4, tie_embeddings=True)
# Weights of a layer's matrices: q and o, k and v, gate, up and down.
MATRICES = 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 24
PROMPTS, LENGTHS = np.array([5, 3]), np.array([[4, 1], [2, 6]])


def flops(queries, logits):
    """Products of queries that see so many keys each, in both layers, and of logits."""
    pair = 2 * 2 * 4 * 4  # scores and mixture of 4 heads of width 4
    return 2 * sum(2 * MATRICES + pair * seen for seen in queries) + 2 * 16 * 50 * logits


def test_a_prompt_is_prefilled_once():
    assert work.prefill_flops(CONFIG, PROMPTS) == flops([1, 2, 3, 4, 5, 1, 2, 3], 0)


def test_all_tokens_but_the_last_are_fed_back():
    queries = [
        prompt + t
        for prompt, group in zip(PROMPTS, LENGTHS, strict=True)
        for n in group
        for t in range(1, n)
    ]
    assert work.decode_flops(CONFIG, PROMPTS, LENGTHS) == flops(queries, 13)


def test_an_update_is_three_forward_passes_of_the_effective_groups():
    queries = [1, 2, 3, 4, 5, 5 + 1, 5 + 2, 5 + 3, 5 + 4, 5 + 1]
    assert work.update_flops(CONFIG, PROMPTS, LENGTHS, np.array([True, False])) == 3 * flops(
        queries, 5
    )
    assert work.update_flops(CONFIG, PROMPTS, LENGTHS, np.array([False, False])) == 0


def test_decoding_reads_weights_each_step_and_what_each_token_sees():
    place = 2 * 2 * 2 * 4 * 4  # keys and values, layers, heads, width, bytes
    weights = 4 * (2 * (MATRICES + 32) + 16 + 50 * 16)
    own = (1 + 2 + 3) + 0 + 1 + (1 + 2 + 3 + 4 + 5)
    prompts = 5 * 3 + 3 * 5  # as long as the longest of the group goes on
    assert work.decode_bytes(CONFIG, PROMPTS, LENGTHS, 5, 4) == 5 * weights + place * (
        own + prompts
    )


def test_in_8_bits_a_byte_a_number_and_four_a_scale_are_read():
    def read(**which):
        return work.decode_bytes(CONFIG, PROMPTS, LENGTHS, 5, 4, **which)

    seen = (1 + 2 + 3) + 0 + 1 + (1 + 2 + 3 + 4 + 5) + 5 * 3 + 3 * 5
    # Output channels of q, k and v, o, gate and up, down in both layers, and of the table.
    channels = 2 * (16 + 2 * 8 + 16 + 2 * 24 + 16) + 50
    saved = 3 * (2 * MATRICES + 50 * 16) - 4 * channels
    assert read() - read(int8_weights=True) == 5 * saved
    # A head of 4 numbers takes 4 + 4 bytes instead of 16.
    assert read() - read(int8_cache=True) == seen * 2 * 2 * 2 * (16 - 8)


def test_the_machine_has_rates_memory_and_a_clock():
    rates = measure_rates(np.dtype("float32"))
    assert rates.product_flops_per_s > 1e8
    assert rates.copy_bytes_per_s > 1e7
    assert peak_memory_mb() > 50
    share = Clock().other_share()
    assert share is None or share >= 0
