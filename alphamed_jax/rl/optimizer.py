"""The optimiser: AdamW by optax, its learning rate, and how its moments are kept between updates.

Moments take more memory than anything else of a run, 8 bytes a weight in float32. `bfloat16` keeps
both in 16 bits: they are widened, moved on in float32, and rounded once an update. `factored` keeps
of the squares v the means over the rows and over the columns of each matrix (Shazeer and Stern
2018, algorithm 4), v[i,j] = r[i] c[j] / mean(r), with the decay of Adam:

    v <- b2' v + (1 - b2') (g² + eps²)     b2' = b2 (1 - b2^t) / (1 - b2^(t+1)) at update t, from 0
    step = mean of g / sqrt(v), decaying by b1, kept in bfloat16, where b1 is above 0

The rate b2' makes of it the mean whose bias Adam corrects. Heads and their width are one side of a
matrix (`as_matrix`); of vectors, and of matrices with a side below 128, v is kept whole.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from alphamed_jax.config import OptimizerConfig
from alphamed_jax.model.mesh import constrain

FEWEST = 128
"""Places that a matrix's shorter side has at least where its squares are factored."""


def learning_rate(config: OptimizerConfig, total_updates: int) -> optax.Schedule:
    """Linear warm-up to the peak, then constant, or linear or cosine decay.

    Update i, from 0, has the rate at i: the decay reaches zero at `total_updates`, one update after
    the last. Updates that were skipped do not count.
    """
    peak, warmup = config.learning_rate, config.warmup_updates
    rest = max(total_updates - warmup, 1)
    after = {
        "constant": optax.constant_schedule(peak),
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(peak, rest),
    }[config.schedule]
    if warmup == 0:
        return after
    # The first update already learns: count from 1 / warmup.
    ramp = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([ramp, after], [warmup])


def optimizer(config: OptimizerConfig, total_updates: int) -> optax.GradientTransformation:
    """AdamW after clipping by the global norm."""
    rate = learning_rate(config, total_updates)
    if config.moments == "factored":
        steps = optax.chain(
            _factored(config),
            optax.add_decayed_weights(config.weight_decay),
            optax.scale_by_learning_rate(rate),
        )
    else:
        steps = optax.adamw(
            rate, b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay
        )
        if config.moments == "bfloat16":
            steps = _kept_in_bfloat16(steps)
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), steps)


def _factored(config: OptimizerConfig) -> optax.GradientTransformation:
    """Adafactor's scale by factored squares, with Adam's decay, then the mean over updates."""

    def corrected(step: Any, decay: Any) -> Any:
        return decay * (1 - decay**step) / (1 - decay ** (step + 1))

    scale = _of_matrices(
        optax.scale_by_factored_rms(
            decay_rate=config.b2,
            min_dim_size_to_factor=FEWEST,
            epsilon=config.eps**2,
            decay_rate_fn=corrected,
        )
    )
    if config.b1 == 0:
        return scale
    return optax.chain(scale, _kept_in_bfloat16(optax.ema(config.b1)))


def _kept_in_bfloat16(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` with the float32 arrays of its state in bfloat16 between updates."""

    def cast(state: Any, given: Any, dtype: Any) -> Any:
        return jax.tree.map(lambda x: x.astype(dtype) if x.dtype == given else x, state)

    def init(params: optax.Params) -> optax.OptState:
        return cast(inner.init(params), jnp.float32, jnp.bfloat16)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        changes, new = inner.update(updates, cast(state, jnp.bfloat16, jnp.float32), params)
        return changes, cast(new, jnp.float32, jnp.bfloat16)

    return optax.GradientTransformation(init, update)


def as_matrix(shape: tuple[int, ...], stacked: bool) -> tuple[int, ...]:
    """A weight's shape with its axes as those of a matrix, cut where fewest means are kept.

    As it is where a side would be shorter than `FEWEST`.

    Args:
      stacked: whether the first axis is that of the layers, which stays apart.
    """
    layers, rest = shape[:stacked], shape[stacked:]
    cuts = [(math.prod(rest[:i]), math.prod(rest[i:])) for i in range(1, len(rest))]
    sides = min(cuts, key=sum, default=(0, 0))
    return (*layers, *sides) if min(sides) >= FEWEST else shape


def _of_matrices(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Factored scaling of weights as matrices.

    Row and column means are whole on every device, as `state_shardings` has them.
    """

    def matrices(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, x: x.reshape(as_matrix(x.shape, jax.tree_util.DictKey("layers") in path)),
            tree,
        )

    def init(params: optax.Params) -> optax.OptState:
        return inner.init(matrices(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        found: tuple[Any, Any] = inner.update(matrices(updates), state, matrices(params))
        changes, new = found
        rows, columns = jax.tree.map(
            lambda x: constrain(x, *(None,) * x.ndim), (new.v_row, new.v_col)
        )
        changes = jax.tree.map(lambda change, x: change.reshape(x.shape), changes, updates)
        return changes, new._replace(v_row=rows, v_col=columns)

    return optax.GradientTransformation(init, update)
