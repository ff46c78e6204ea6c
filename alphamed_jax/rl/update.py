"""The GRPO update: from a batch of trajectories and advantages to new weights.

One jitted, donated step accumulates the gradient over as many micro-batches as the batch
needs and applies it. Sums are accumulated, never means; the divisors are those of the whole
batch, so that micro-batches of any size give the same gradient.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from alphamed_jax.config import LossConfig, OptimizerConfig
from alphamed_jax.model import lora
from alphamed_jax.model.config import ModelConfig, Params
from alphamed_jax.model.mesh import mesh_of
from alphamed_jax.rl.batch import GroupBatch
from alphamed_jax.rl.distribution import Sampling
from alphamed_jax.rl.logprobs import Compute, policy_logprobs
from alphamed_jax.rl.loss import Totals, policy_loss
from alphamed_jax.rl.optimizer import learning_rate, optimizer


class TrainState(NamedTuple):
    """Everything that learning changes."""

    params: Params
    """float32 master weights; with adapters these, and the frozen model in the compute dtype."""
    opt_state: optax.OptState
    updates: Int[Array, ""]
    """Updates applied."""
    skipped: Int[Array, ""]
    """Updates left out because their gradient was not finite."""


class Objective(NamedTuple):
    """What the compiled update depends on, all of it hashable."""

    model: ModelConfig
    sampling: Sampling
    compute: Compute
    loss: LossConfig
    """As it was configured; `constant_length` is known."""
    optimizer: OptimizerConfig
    total_updates: int
    """Updates of the whole run, where the learning rate falls towards its end."""


def state_shardings(abstract_params: Any, objective: Objective) -> Any:
    """Shardings in the shape of a `TrainState`: the moments lie where what learns lies.

    Row and column means of factored ones are small, and whole on every device.

    Spelled as compiled programs return them, without trailing Nones: jit takes P("fsdp", None)
    and P("fsdp") for different arguments, and the second step would compile everything again.
    """
    whole = NamedSharding(mesh_of(abstract_params), PartitionSpec())

    def respelled(x):
        axes = list(x.sharding.spec) if isinstance(x.sharding, NamedSharding) else []
        while axes and axes[-1] is None:
            axes.pop()
        return NamedSharding(whole.mesh, PartitionSpec(*axes))

    layout = jax.tree.map(respelled, abstract_params)
    tx = optimizer(objective.optimizer, objective.total_updates)
    opt_state = optax.tree_utils.tree_map_params(
        tx,
        lambda moment, weight, where: where if moment.shape == weight.shape else whole,
        jax.eval_shape(tx.init, lora.learned(abstract_params)),
        lora.learned(abstract_params),
        lora.learned(layout),
        transform_non_params=lambda _: whole,
    )
    tree: Any = (layout, opt_state, whole, whole)
    return TrainState(*tree)


def _fresh(objective: Objective, params: Params) -> TrainState:
    tx = optimizer(objective.optimizer, objective.total_updates)
    opt_state = tx.init(lora.learned(params))
    return TrainState(params, opt_state, jnp.int32(0), jnp.int32(0))


def init_state(objective: Objective, params: Params) -> TrainState:
    """Fresh optimiser state beside `params`, which it takes over (their arrays are donated)."""
    fresh = jax.jit(
        functools.partial(_fresh, objective),
        out_shardings=state_shardings(params, objective),
        donate_argnums=0,
    )
    return fresh(params)


def abstract_state(objective: Objective, abstract_params: Any) -> TrainState:
    """Shapes, dtypes and shardings of a state, without any array; a checkpoint is read into it."""
    return jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        jax.eval_shape(lambda p: _fresh(objective, p), abstract_params),
        state_shardings(abstract_params, objective),
    )


def micro_batch_loss(
    params: Params, micro: GroupBatch, totals: Totals, objective: Objective
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Part of the loss that one micro-batch contributes, and the sums its metrics are made of."""
    logprobs, entropy = policy_logprobs(
        objective.model, params, micro, objective.sampling, objective.compute
    )
    rows = micro.tokens.shape[-1]
    logprobs, entropy = logprobs.reshape(-1, rows), entropy.reshape(-1, rows)
    mask = jnp.arange(rows) < micro.lengths.reshape(-1, 1)
    # With one update per rollout the policy is the one that sampled: the ratio is 1.
    old = micro.old_logprobs
    old = jax.lax.stop_gradient(logprobs) if old is None else old.reshape(-1, rows)
    reference = micro.reference_logprobs
    sampler = micro.sampler_logprobs.reshape(-1, rows)
    loss, metrics = policy_loss(
        logprobs,
        old,
        micro.advantages.reshape(-1),
        mask,
        section=objective.loss,
        reference_logprobs=None if reference is None else reference.reshape(-1, rows),
        sampler_logprobs=sampler,
        totals=totals,
    )
    gap = jnp.where(mask, jnp.abs(logprobs - sampler), 0.0)
    metrics |= {
        "entropy": jnp.where(mask, entropy, 0.0).sum(),
        "sampler_gap/mean": gap.sum(),
        "sampler_gap/max": gap.max(initial=0.0),
        "tokens/trained": mask.sum(),
    }
    return loss, jax.lax.stop_gradient(metrics)


def batch_gradient(
    params: Params, batch: GroupBatch, count: Int[Array, ""], totals: Totals, objective: Objective
) -> tuple[Params, dict[str, Array]]:
    """Gradient of the whole batch, from its first `count` micro-batches, and metric sums.

    It is that of what learns (`lora.learned`): nothing is differentiated by a frozen weight.
    """
    learned = lora.learned(params)

    def one(learned, micro):
        return micro_batch_loss(lora.with_learned(params, learned), micro, totals, objective)

    first = jax.tree.map(lambda x: x[0], batch)
    shapes = jax.eval_shape(one, learned, first)[1]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (learned, shapes))

    def add(i, carry):
        grads, sums = carry
        micro = jax.tree.map(lambda x: x[i], batch)
        new_grads, new = jax.grad(one, has_aux=True)(learned, micro)
        summed = {name: sums[name] + value for name, value in new.items()}
        summed["sampler_gap/max"] = jnp.maximum(sums["sampler_gap/max"], new["sampler_gap/max"])
        return jax.tree.map(jnp.add, grads, new_grads), summed

    if batch.lengths.shape[0] > 1:
        return jax.lax.fori_loop(0, count, add, zeros)
    # A single micro-batch needs no loop and no sum, hence no second copy of the gradient.
    return jax.lax.cond(
        count > 0, lambda: jax.grad(one, has_aux=True)(learned, first), lambda: zeros
    )


@functools.partial(jax.jit, static_argnames="objective", donate_argnames="state")
def update(
    state: TrainState,
    batch: GroupBatch,
    count: Int[Array, ""],
    totals: Totals,
    *,
    objective: Objective,
) -> tuple[TrainState, dict[str, Array]]:
    """One optimiser update.

    Args:
      batch: micro-batches [M P G ..], of which the first `count` are used.
      totals: tokens and sequences of the batch, those of ineffective groups included.

    Returns:
      The new state, and metrics; means over trained tokens, nan where there are none.
      A gradient that is not finite changes nothing but `skipped`.
    """
    grads, metrics = batch_gradient(state.params, batch, count, totals, objective)
    norm = optax.global_norm(grads)
    tx = optimizer(objective.optimizer, objective.total_updates)
    before = lora.learned(state.params)
    changes, opt_state = tx.update(grads, state.opt_state, before)
    after = optax.apply_updates(before, changes)
    finite = jnp.isfinite(norm)

    def choose(new, old):
        return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

    new_state = TrainState(
        lora.with_learned(state.params, choose(after, before)),
        choose(opt_state, state.opt_state),
        state.updates + finite,
        state.skipped + ~finite,
    )
    trained = metrics["tokens/trained"].astype(jnp.float32)
    for name in ("entropy", "sampler_gap/mean"):
        metrics[name] = metrics[name] / trained
    # Shares of totals.tokens.
    for name in ("clip/low", "clip/high", "ratio/mean", "tis/weight", "tis/truncated"):
        metrics[name] = metrics[name] * totals.tokens / trained
    metrics["sampler_gap/max"] = jnp.where(trained > 0, metrics["sampler_gap/max"], jnp.nan)
    schedule = learning_rate(objective.optimizer, objective.total_updates)
    metrics |= {"grad_norm": norm, "learning_rate": jnp.asarray(schedule(state.updates))}
    return new_state, metrics


@functools.partial(jax.jit, static_argnames="objective")
def score(
    params: Params, batch: GroupBatch, count: Int[Array, ""], *, objective: Objective
) -> Float[Array, "M P G T"]:
    """Log-probabilities of the batch under `params`: the old or the reference policy's."""

    def one(i, logprobs):
        micro = jax.tree.map(lambda x: x[i], batch)
        new, _ = policy_logprobs(
            objective.model, params, micro, objective.sampling, objective.compute
        )
        return logprobs.at[i].set(new)

    return jax.lax.fori_loop(0, count, one, jnp.zeros(batch.tokens.shape))
