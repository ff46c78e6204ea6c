"""How Adam's moments are kept: closed forms in NumPy, on any mesh, and across a checkpoint."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from helpers import make_objective, on_mesh

from alphamed_jax.config import OptimizerConfig
from alphamed_jax.errors import UserError
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.mesh import mesh_of
from alphamed_jax.model.network import map_weights, weights
from alphamed_jax.output.checkpoint import Checkpoints
from alphamed_jax.rl.optimizer import as_matrix, optimizer
from alphamed_jax.rl.update import abstract_state, init_state, state_shardings

# Wide enough for two axes of most arrays to be a matrix.
WIDE = ModelConfig(
    vocab_size=256,
    hidden_size=128,
    intermediate_size=256,
    num_layers=1,
    num_heads=4,
    num_kv_heads=4,
    head_dim=32,
    tie_embeddings=True,
)
SHAPES = {
    "layers": {"up": (2, 128, 256), "q": (2, 256, 4, 32), "o": (2, 4, 32, 256), "norm": (2, 96)},
    "table": (192, 128),
}


def config_of(moments, **changes):
    settings = {"learning_rate": 1e-2, "warmup_updates": 0, "max_grad_norm": 1e9} | changes
    return OptimizerConfig(moments=moments, **settings)


def made_up(shapes, seed):
    """Normal numbers in a tree of these shapes."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda shape: np.float32(rng.normal(size=shape)), shapes, is_leaf=of_ints)


def of_ints(x):
    return isinstance(x, tuple)


GRADIENTS = [jax.tree.map(lambda g, i=i: g * 10.0**i, made_up(SHAPES, i)) for i in range(4)]


@functools.cache
def steps_of(**settings):
    """What the optimiser takes from weights of 0 at each gradient, over the learning rate."""
    tx = optimizer(config_of(**settings), 0)
    params = jax.tree.map(jnp.zeros_like, GRADIENTS[0])
    state, found = tx.init(params), []
    update = jax.jit(tx.update)
    for grads in GRADIENTS:
        changes, state = update(grads, state, params)
        found.append(jax.tree.map(lambda x: -np.asarray(x) / 1e-2, changes))
    return found


def leaf_by_leaf(found):
    """Name, gradients and steps of each array."""
    for path, _ in jax.tree.leaves_with_path(GRADIENTS[0]):
        name = path[-1].key
        pick = [
            [{p[-1].key: x for p, x in jax.tree.leaves_with_path(tree)}[name] for tree in trees]
            for trees in (GRADIENTS, found)
        ]
        yield name, zip(*pick, strict=True)


def rounded(x):
    return np.asarray(x, ml_dtypes.bfloat16).astype(np.float64)


def test_float32_is_optax_adamw_as_ever():
    # Given weights, when both take the same gradients,
    theirs = optax.adamw(1e-2, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.0)
    params = jax.tree.map(jnp.zeros_like, GRADIENTS[0])
    state, update = theirs.init(params), jax.jit(theirs.update)
    # then the steps are the same.
    for grads, ours in zip(GRADIENTS, steps_of(moments="float32"), strict=True):
        changes, state = update(grads, state, params)
        expected = jax.tree.map(lambda x: -np.asarray(x) / 1e-2, changes)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, expected)


def assert_near(step, expected, rounding):
    """Equal in float32, but where a moment beside the border of two bfloat16s fell to the other."""
    assert np.isclose(step, expected, rtol=1e-4, atol=1e-5).mean() > (
        0.999 if rounding else 1 - 1e-9
    )
    np.testing.assert_allclose(step, expected, atol=2**-6)


def test_bfloat16_moments_move_in_float32_and_are_rounded_once_an_update():
    for _, pairs in leaf_by_leaf(steps_of(moments="bfloat16")):
        mean = square = 0.0
        for t, (grads, step) in enumerate(pairs, 1):
            g = np.float64(grads)
            mean, square = 0.9 * mean + 0.1 * g, 0.95 * square + 0.05 * g**2
            expected = mean / (1 - 0.9**t) / (np.sqrt(square / (1 - 0.95**t)) + 1e-8)
            assert_near(step, expected, rounding=True)
            mean, square = rounded(mean), rounded(square)


def factored(square):
    """Row times column means of the last two axes."""
    rows, columns = square.mean(-1, keepdims=True), square.mean(-2, keepdims=True)
    return rows * columns / rows.mean(-2, keepdims=True)


MATRICES = {"up": (2, 128, 256), "q": (2, 256, 128), "o": (2, 128, 256), "table": (192, 128)}


@pytest.mark.parametrize("b1", [0.0, 0.9])
def test_factored_squares_are_row_times_column_means_with_adams_decay(b1):
    for name, pairs in leaf_by_leaf(steps_of(moments="factored", b1=b1)):
        mean = square = 0.0
        for t, (grads, step) in enumerate(pairs, 1):
            g = np.float64(grads).reshape(MATRICES.get(name, grads.shape))
            square = 0.95 * square + 0.05 * (g**2 + 1e-16)
            corrected = square / (1 - 0.95**t)  # what Adam divides by
            divisor = factored(corrected) if name in MATRICES else corrected
            mean = b1 * mean + (1 - b1) * g / np.sqrt(divisor)
            assert_near(step, (mean / (1 - b1**t)).reshape(step.shape), rounding=b1 > 0)
            mean = rounded(mean) if b1 else mean


def test_a_weight_is_cut_into_the_two_sides_that_it_multiplies():
    # Heads and their width stay together, and layers apart, however many there are.
    assert as_matrix((80, 4096, 32, 128), True) == (80, 4096, 4096)
    assert as_matrix((80, 32, 128, 4096), True) == (80, 4096, 4096)
    assert as_matrix((16, 2048, 8, 64), True) == (16, 2048, 512)
    assert as_matrix((128256, 4096), False) == (128256, 4096)
    # Vectors, and matrices with a short side, are none.
    for shape in ((80, 8192), (28, 64, 128), (80, 4096, 16)):
        assert as_matrix(shape, True) == shape


def test_moments_in_bfloat16_are_forgotten_as_those_in_float32():
    # Given moments that no gradient feeds any more, at the slowest decay that is allowed,
    tx = optimizer(config_of("bfloat16", b1=0.99, b2=0.99), 0)
    params = {"x": jnp.zeros(4)}
    _, state = tx.update({"x": jnp.array([1e-3, 0.1, 1.0, 7.0])}, tx.init(params), params)
    start = state[1][0]
    step = jax.jit(lambda s: tx.update({"x": jnp.zeros(4)}, s, params)[1])
    for _ in range(300):
        state = step(state)
    # then both fall as they should, by 0.99 an update, but for what rounding adds up to.
    for then, now in ((start.mu["x"], state[1][0].mu["x"]), (start.nu["x"], state[1][0].nu["x"])):
        assert now.dtype == jnp.bfloat16
        ratio = np.asarray(now, np.float32) / np.asarray(then, np.float32)
        np.testing.assert_allclose(ratio, 0.99**300, rtol=0.5)


@pytest.mark.parametrize(
    ("moments", "slow", "kept"),
    [
        ("bfloat16", {"b1": 0.995}, {}),
        ("bfloat16", {"b2": 0.999}, {}),
        ("factored", {"b1": 0.995}, {"b2": 0.999}),
    ],
)
def test_a_decay_that_rounding_would_undo_is_refused(moments, slow, kept):
    config_of(moments, **kept)
    with pytest.raises(UserError, match=r"at most 0\.99, or optimizer\.moments float32") as told:
        config_of(moments, **slow)
    assert "\n" not in str(told.value)


def objective_of(moments, **changes):
    return make_objective(WIDE, optimizer=config_of(moments, **changes))


def wide_weights():
    return made_up(map_weights(lambda shape, _: shape, weights(WIDE)), 0)


def updated(moments, mesh):
    """The state after three updates by made-up gradients, split over a mesh."""
    objective = objective_of(moments)
    state = init_state(objective, on_mesh(wide_weights(), mesh, WIDE))
    slopes = on_mesh(wide_weights(), mesh, WIDE)
    tx = optimizer(objective.optimizer, 0)

    @jax.jit
    def step(state, slopes):
        grads = jax.tree.map(lambda x: jnp.sin(3 * x + state.updates), slopes)
        changes, moments = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, changes)
        return state._replace(params=params, opt_state=moments, updates=state.updates + 1)

    with jax.set_mesh(mesh_of(state.params)):
        for _ in range(3):
            state = step(state, slopes)
    assert step._cache_size() == 1, "what an update returns is laid out as what it takes"
    return objective, state


@pytest.mark.parametrize("moments", ["bfloat16", "factored"])
def test_moments_are_the_same_on_any_mesh_and_lie_where_they_were_planned(moments, tmp_path):
    _, alone = updated(moments, "1x1")
    objective, state = updated(moments, "2x4")
    for one, other in zip(*map(jax.tree.leaves, (alone, state)), strict=True):
        assert one.dtype == other.dtype
        one, other = np.float64(one), np.float64(other)
        assert np.isclose(one, other, rtol=1e-4, atol=1e-5).mean() > 0.999  # see `assert_near`
        np.testing.assert_allclose(one, other, atol=2**-8 * max(np.abs(one).max(), 1e-2))
    planned = state_shardings(state.params, objective)
    assert jax.tree.map(lambda x: x.sharding, state) == planned
    # They come back from a checkpoint bit for bit, where they were.
    with Checkpoints(tmp_path) as saved:
        saved.save(3, state, {"step": 3})
        restored = saved.restore(3, abstract_state(objective, state.params))
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert jax.tree.map(lambda x: (x.sharding, x.dtype), restored) == jax.tree.map(
        lambda x: (x.sharding, x.dtype), state
    )


def test_a_weight_has_eight_bytes_of_moments_or_four_or_two_or_next_to_none():
    params = on_mesh(wide_weights(), "1x1", WIDE)
    count = sum(x.size for x in jax.tree.leaves(params))
    found = {}
    for name, changes in (
        ("float32", {}),
        ("bfloat16", {}),
        ("factored", {}),
        ("factored", {"b1": 0.0}),
    ):
        state = abstract_state(objective_of(name, **changes), params)
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.opt_state))
        found[name, *changes] = size / count
    assert found["float32",] == pytest.approx(8, rel=1e-3)
    assert found["bfloat16",] == pytest.approx(4, rel=1e-3)
    assert found["factored",] == pytest.approx(2, rel=0.05)
    assert found["factored", "b1"] < 0.1
