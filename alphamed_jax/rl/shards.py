"""Rows of each data shard: taken, written, and caches made, without a word between shards.

Letters: R data shards, m rows of each, B = R·m of all, k of them that are taken or written.
"""

import jax
from jaxtyping import Array, Int, Shaped

from alphamed_jax.model.cache import placed
from alphamed_jax.model.mesh import constrain
from alphamed_jax.rl.language_model import Caches, LanguageModel


def split_shards(x: Shaped[Array, "B ..."], data_shards: int) -> Shaped[Array, "R m ..."]:
    """The leading axis cut into the data shards' parts."""
    return x.reshape(data_shards, x.shape[0] // data_shards, *x.shape[1:])


def take_rows(
    x: Shaped[Array, "R m ..."], index: Int[Array, "R k"], *axes: str | None
) -> Shaped[Array, "R k ..."]:
    """Elements `index` of each data shard's; `axes` are the logical ones of an element."""
    taken = jax.vmap(lambda shard, i: shard[i])(x, index)
    return constrain(taken, "batch", None, *axes, *(None,) * (taken.ndim - 2 - len(axes)))


def put_rows(
    x: Shaped[Array, "R m ..."], index: Int[Array, "R k"], new: Shaped[Array, "R k ..."]
) -> Shaped[Array, "R m ..."]:
    """Write elements `index` of each data shard's; an index beyond the last writes nothing."""
    return jax.vmap(lambda shard, i, v: shard.at[i].set(v, mode="drop"))(x, index, new)


def take_caches(x: Shaped[Array, "B K S ..."], index: Int[Array, "R s"]) -> Array:
    """Caches `index` of each data shard's, [R·s K S ..]."""
    taken = take_rows(split_shards(x, index.shape[0]), index, "kv_heads")
    return placed(jax.lax.collapse(taken, 0, 2))


def empty_caches(model: LanguageModel, slots: int, capacity: int) -> Caches:
    def layers():
        return tuple(model.empty_cache(slots, capacity) for _ in range(model.num_layers))

    return Caches(layers(), layers())
