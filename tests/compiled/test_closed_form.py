"""What a step must cost at least, against numbers worked out by hand."""

import dataclasses

from helpers import TINY

from alphamed_jax.compiled import closed_form
from alphamed_jax.config import LoraConfig
from alphamed_jax.model import network
from alphamed_jax.model.config import ModelConfig

LLAMA_8B = ModelConfig(128256, 4096, 14336, 32, 32, 8, 128)


def test_weights_of_a_decode_step_are_all_but_the_embedding_table():
    norms = (2 * 32 + 1) * 4096
    products = network.count_parameters(LLAMA_8B) - 128256 * 4096 - norms
    assert closed_form.decode_weight_bytes(LLAMA_8B, 1) == 2 * (products + norms)
    assert closed_form.decode_weight_bytes(LLAMA_8B, 8) == 2 * (products // 8 + norms)


def test_in_8_bits_each_output_channel_and_token_of_the_head_has_four_bytes_more():
    norms = (2 * 32 + 1) * 4096
    products = network.count_parameters(LLAMA_8B) - 128256 * 4096 - norms
    # q, k and v, o, gate and up, down, and the head.
    channels = 32 * (4096 + 2 * 1024 + 4096 + 2 * 14336 + 4096) + 128256
    read = closed_form.decode_weight_bytes
    assert read(LLAMA_8B, 1, int8=True) == products + 4 * channels + 2 * norms
    # Eight ways the channels of o and down are whole on each device.
    whole = 32 * 2 * 4096
    shared = (channels - whole) // 8
    assert read(LLAMA_8B, 8, int8=True) == products // 8 + 4 * (shared + whole) + 2 * norms
    tied = dataclasses.replace(LLAMA_8B, tie_embeddings=True)
    assert read(tied, 4, int8=True) == read(LLAMA_8B, 4, int8=True)


def test_a_head_of_a_token_in_8_bits_has_four_bytes_more():
    found = closed_form.cache_bytes(LLAMA_8B, 3, 10, 2, int8=True)
    assert found == 2 * 32 * 3 * 10 * 4 * (128 + 4)


def test_a_tied_table_is_read_as_the_head():
    tied = dataclasses.replace(LLAMA_8B, tie_embeddings=True)
    read = closed_form.decode_weight_bytes
    assert read(tied, 4) == read(LLAMA_8B, 4)


def test_key_value_heads_fewer_than_the_axis_are_whole_on_each_device():
    halves, whole = (closed_form.cache_bytes(LLAMA_8B, 3, 10, t) for t in (2, 16))
    assert whole == 2 * halves == 2 * 32 * 3 * 10 * 8 * 128 * 2


def test_pairs_are_those_that_attention_may_see():
    # A prompt of 3: 1 + 2 + 3; a response of 2: (3 + 1) + (3 + 2); one of 1: 3 + 1.
    assert closed_form.causal_pairs(3, [2, 1]) == 6 + 9 + 4


def test_update_flops_are_six_a_weight_and_token_beside_attention():
    tokens, pairs = 2 * (5 + 4 * 7), 2 * closed_form.causal_pairs(5, [7] * 4)
    weights = network.count_parameters(TINY) - 320 * 64 - (2 * 2 + 1) * 64
    head = 320 * 64 * 2 * 4 * 7
    attention = 2 * 8 * 8 * pairs  # layers, heads, width
    expected = 6 * weights * tokens + 6 * head + 3 * 4 * attention
    assert closed_form.update_flops(TINY, 2, 5, [7] * 4) == expected


def test_a_frozen_weight_takes_four_flops_a_token_and_an_adapter_six():
    tokens, pairs = 2 * (5 + 4 * 7), 2 * closed_form.causal_pairs(5, [7] * 4)
    weights = network.count_parameters(TINY) - 320 * 64 - (2 * 2 + 1) * 64
    head, attention = 320 * 64 * 2 * 4 * 7, 2 * 8 * 8 * pairs
    # Of rank 3 on q [64, 64] and down [128, 64] of both layers.
    adapters = 2 * 3 * ((64 + 64) + (128 + 64))
    expected = 4 * weights * tokens + 4 * head + 3 * 4 * attention + 6 * adapters * tokens
    lora = LoraConfig(rank=3, targets=("q", "down"))
    assert closed_form.update_flops(TINY, 2, 5, [7] * 4, lora) == expected


def test_adapters_beside_the_weights_are_read_at_each_step_in_16_bits_alone():
    lora = LoraConfig(rank=3, targets=("q", "down"))
    assert closed_form.beside_bytes(TINY, lora, 1) == 2 * 2 * 3 * (64 + 64 + 128 + 64)
    # Four ways: q's B by heads, down's A by the feed-forward part; the others are whole.
    assert closed_form.beside_bytes(TINY, lora, 4) == 2 * 2 * 3 * (64 + 16 + 32 + 64)
    assert closed_form.beside_bytes(TINY, lora, 1, width=4) == 0
    # Weights in 8 bits have adapters beside them in any dtype.
    assert closed_form.beside_bytes(TINY, lora, 1, width=4, int8=True) == 2 * 2 * 2 * 3 * 320
