"""Pretraining of the quickstart model: next-token loss on drills first, then on both habits.

Small batches and many steps: finding an option's letter from its text is a circuit of two
attention layers that emerges late, and never did with large batches. It is helped by drills and
by an initialisation in which the upper layers' queries resemble their keys, so that equal
contents attend to each other from the start.
"""

import functools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from alphamed_jax.config import PromptConfig
from alphamed_jax.model import modules, network
from alphamed_jax.model.config import ModelConfig, Params
from alphamed_jax.model.dense import causal_attention
from alphamed_jax.model.rope import rope_frequencies
from alphamed_jax.quickstart import corpus
from alphamed_jax.randomness import random_key

CHUNK = 100
"""Steps per call of the compiled loop."""
RESPONSE = 17
"""Tokens of the longest response, its end included."""
INDUCTION = 3
"""Heads that start as an induction circuit."""
POSITION, CONTENT = 2.0, 4.0
"""How sharply those heads attend at first, by position and by content."""


@dataclass(frozen=True)
class PretrainConfig:
    """How long and how fast; every number is our choice."""

    steps: int = 2500
    drill_steps: int = 500
    """Steps of the first stage, which is drills alone."""
    drill_share: float = 0.2
    """Drills among the examples of the second stage."""
    batch: int = 8
    length: int = 56
    """Tokens per row; longer examples are an error."""
    learning_rate: float = 1e-3
    warmup: int = 200
    report_every: int = 500


def model_config(vocab_size: int) -> ModelConfig:
    """Three layers of width 128. Eight heads, so that the pod's `--mesh 8x8` works on it too."""
    return ModelConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=256,
        num_layers=3,
        num_heads=8,
        num_kv_heads=8,
        head_dim=16,
        tie_embeddings=True,
        max_position_embeddings=512,
    )


def init(config: ModelConfig, key: jax.Array) -> Params:
    """Random weights, 1 / sqrt(D) wide, in which the first two layers hold an induction circuit.

    "What followed the last token when it occurred before?" is how a letter is found from its
    option's text, and it takes two layers that learn nothing until both are right (Olsson et al.
    2022, "In-context learning and induction heads"). So a few heads start there: in layer 0 they
    attend to the previous token and pass its content on, in layer 1 their queries are the
    current token's content and their keys what layer 0 passed on. In the other heads above
    layer 0 queries resemble keys, so that equal contents attend to each other.
    """
    init_key, basis_key = jax.random.split(key)
    params = modules.init(config, init_key)
    params = jax.tree.map(lambda x: x * (config.hidden_size**-0.5 / 0.02), params)
    # One dimension is the same for all tokens: attention by position alone needs a constant.
    params["embed"] = params["embed"].at[:, 0].set(3 * config.hidden_size**-0.5)
    params["norm"] = jnp.ones_like(params["norm"])
    weights = {name: np.array(value) for name, value in params["layers"].items()}
    for name in ("attention_norm", "mlp_norm"):
        weights[name][:] = 1.0
    ratio = config.num_heads // config.num_kv_heads
    weights["q"][1:] = np.repeat(weights["k"][1:], ratio, axis=2) + 0.1 * weights["q"][1:]

    # The feed-forward layers start small, else their noise drowns what attention passes on.
    weights["down"] *= 0.1

    half = config.head_dim // 2
    fast = min(3, half - 1)  # frequencies that tell neighbours apart; the slow ones hold content
    slow = np.r_[fast:half, half + fast : 2 * half]
    angle = rope_frequencies(config)[:fast]
    basis = jax.random.normal(basis_key, (config.hidden_size, 2 * INDUCTION * len(slow)))
    basis = np.linalg.qr(np.asarray(basis).copy())[0].T.reshape(2, INDUCTION, len(slow), -1)
    basis[..., 0] = 0.0
    for head in range(INDUCTION):
        query, kv = head * ratio, head
        read, write = basis[:, head]
        for name in ("q", "k"):
            weights[name][:2, :, query if name == "q" else kv] = 0.0
        weights["v"][0, :, kv] = 0.0
        weights["o"][0, query] = 0.0
        # Layer 0: a query turned back by one position meets the key of the token before.
        weights["k"][0, 0, kv, :fast] = POSITION
        weights["q"][0, 0, query, :fast] = POSITION * np.cos(angle)
        weights["q"][0, 0, query, half : half + fast] = -POSITION * np.sin(angle)
        weights["v"][0][:, kv, : len(slow)] = read.T
        weights["o"][0, query, : len(slow)] = 0.5 * write
        # Layer 1: the current content looks for itself among the contents passed on.
        weights["q"][1][:, query, slow] = CONTENT * read.T
        weights["k"][1][:, kv, slow] = write.T
    params["layers"] = {name: jnp.asarray(value) for name, value in weights.items()}
    return params


def encode(
    tokenizer: Any, examples: list[corpus.Example], length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [B length] and the weight of each as a target [B length].

    Raises:
      ValueError: an example has more than `length` tokens.
    """
    letters = {
        tokenizer.encode(f" ({letter})", add_special_tokens=False)[0] for letter in corpus.LETTERS
    }
    prompts = tokenizer([e.prompt for e in examples])["input_ids"]
    responses = tokenizer([e.response for e in examples], add_special_tokens=False)["input_ids"]
    tokens = np.full((len(examples), length), tokenizer.pad_token_id, np.int32)
    weights = np.zeros((len(examples), length), np.float32)
    for row, (example, head, tail) in enumerate(zip(examples, prompts, responses, strict=True)):
        tail = [*tail, tokenizer.eos_token_id]
        end = len(head) + len(tail)
        if end > length:
            raise ValueError(f"{end} tokens, more than {length}: {example.prompt!r}")
        tokens[row, :end] = head + tail
        weights[row, len(head) : end] = (
            [token in letters for token in tail] if example.letters_only else 1.0
        )
    return tokens, weights


def loss(
    config: ModelConfig,
    params: Params,
    tokens: Int[Array, "B T"],
    weights: Float[Array, "B T"],
) -> Float[Array, ""]:
    """Weighted mean of the next-token cross-entropy, nats."""
    rows, length = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(length), (rows, length))
    x = network.embed(config, params, tokens, jnp.float32)
    x, _ = network.run_layers(config, params, x, positions, causal_attention)
    # Only responses are learnt: their window alone goes through the large vocabulary product.
    first = jnp.argmax(weights > 0, axis=1)
    places = first[:, None] + jnp.arange(RESPONSE)
    targets = jnp.take_along_axis(tokens, places, axis=1, mode="fill", fill_value=0)
    weights = jnp.take_along_axis(weights, places, axis=1, mode="fill", fill_value=0.0)
    x = jnp.take_along_axis(x, (places - 1)[..., None], axis=1, mode="clip")
    logits = network.unembed(config, params, x)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return jnp.sum(each * weights) / jnp.maximum(jnp.sum(weights), 1.0)


def optimizer(settings: PretrainConfig) -> optax.GradientTransformation:
    """AdamW with warm-up and a cosine to zero: the annealing makes stepwise answers sharp."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, min(settings.warmup, settings.steps // 2), settings.steps
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.99, weight_decay=0.01)
    )


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3))
def run_chunk(config, settings, params, opt_state, tokens, weights):
    """`tokens` [S B T]: S optimiser steps; returns the new state and the losses [S]."""
    transform = optimizer(settings)

    def step(carry, batch):
        params, opt_state = carry
        value, grads = jax.value_and_grad(functools.partial(loss, config))(params, *batch)
        updates, opt_state = transform.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    (params, opt_state), losses = jax.lax.scan(step, (params, opt_state), (tokens, weights))
    return params, opt_state, losses


def examples_of_step(
    rng: random.Random, prompt: PromptConfig, settings: PretrainConfig, step: int
) -> list[corpus.Example]:
    """The batch of one step; the habits alternate, so their parts are equal."""
    share = 1.0 if step < settings.drill_steps else settings.drill_share
    return [
        corpus.drill(rng, prompt)
        if rng.random() < share
        else corpus.qa(rng, prompt, in_steps=rng.random() < 0.5)
        for _ in range(settings.batch)
    ]


def pretrain(
    tokenizer: Any,
    config: ModelConfig,
    prompt: PromptConfig,
    settings: PretrainConfig,
    seed: int,
    report: Callable[[int, float, float, Params], None],
    chunk: int = CHUNK,
) -> Params:
    """Train from scratch; calls `report(step, loss, seconds left, params)` now and then."""
    params = init(config, random_key(seed))
    opt_state = optimizer(settings).init(params)
    rng = random.Random(f"pretrain {seed}")
    start, since = time.monotonic(), []
    for first in range(0, settings.steps, chunk):
        count = min(chunk, settings.steps - first)
        rows = [
            example
            for step in range(first, first + count)
            for example in examples_of_step(rng, prompt, settings, step)
        ]
        tokens, weights = encode(tokenizer, rows, settings.length)
        shape = (count, settings.batch, settings.length)
        params, opt_state, losses = run_chunk(
            config, settings, params, opt_state, tokens.reshape(shape), weights.reshape(shape)
        )
        since.append(float(jnp.mean(losses)))
        done = first + count
        if done % settings.report_every < chunk or done == settings.steps:
            left = (time.monotonic() - start) * (settings.steps - done) / done
            report(done, float(np.mean(since)), left, params)
            since = []
    return params
