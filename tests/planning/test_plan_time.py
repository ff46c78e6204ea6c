"""Time from peak rates: rooflines, lengths of responses, steps, and what a longer cache costs."""

import dataclasses

import numpy as np
import plans
import pytest

from alphamed_jax.compiled.topology import Chip
from alphamed_jax.compiled.work import Work
from alphamed_jax.planning.expected import decode_steps, expect, in_open_loop, spread
from alphamed_jax.planning.roofline import Seconds, seconds
from alphamed_jax.programs.record import Course

CHIP = Chip(flops=100.0, memory=1e9, bandwidth=10.0, links=1.0)


def test_a_roofline_takes_the_slower_of_products_and_memory_and_then_the_links():
    time = seconds(Work(flops=300, traffic=20, comm_bytes=1), CHIP)
    assert time == (3.0, 2.0, 1.0)
    assert (time.serial, time.overlapped, time.bound) == (4.0, 3.0, "products")
    assert Seconds(1.0, 2.0, 5.0).bound == "links"
    assert Work(1, 2, 3).plus(Work(10, 20, 30), 2) == (21, 42, 63)


@pytest.mark.parametrize(
    ("mean", "lengths"),
    [(8, [1, 6, 10, 15]), (14, [12, 14, 14, 16]), (16, [16, 16, 16, 16]), (1, [1, 1, 1, 1])],
)
def test_lengths_are_spread_about_their_mean_as_far_as_there_is_room(mean, lengths):
    found = spread(mean, 16, 4)
    assert abs(found.mean() - mean) <= 0.5
    assert found.min() >= 1
    assert found.max() <= 16
    np.testing.assert_allclose(found, lengths, atol=2)


def test_slots_take_the_next_response_as_they_get_free():
    lengths = np.array([4, 1, 1, 1, 3])
    # 4 beside 1 + 1 + 1 in the two slots; the last begins once the three are done.
    assert decode_steps(lengths, 2) == 6
    assert decode_steps(lengths, 5) == decode_steps(lengths, 99) == 4
    assert decode_steps(lengths, 1) == 10


def test_steps_of_short_caches_read_less():
    # A step reads 1e6 bytes with caches of 512 places, which are 256 at first.
    step = plans.step()
    place = 8 * 2 * 2 * 2 * 8 * 2  # responses, keys and values, layers, heads, width, bfloat16
    cost = plans.cost(per_iteration=(0, 1e6, 0))

    def decoding(steps):
        return in_open_loop(plans.named("decode"), step, cost, CHIP, Course(steps, steps, 1, 1))

    time, work, iterations = decoding(400)
    assert iterations == 400
    assert work.traffic == 400 * 1e6 - 256 * 256 * place
    assert time.memory == pytest.approx(work.traffic / 10)
    _, short, _ = decoding(100)
    assert short.traffic == 100 * (1e6 - 256 * place)


def step_of(config, mean, effective=1.0, **costs):
    costs = {
        plans.named(name): plans.cost(*of[0], per_iteration=of[1]) for name, of in costs.items()
    }
    return expect(plans.step(config), config, costs, CHIP, mean, effective=effective, questions=80)


def test_a_step_is_the_sum_of_its_phases_as_often_as_they_run():
    once, never = ((100, 0, 0), (0, 0, 0)), (0, 0, 0)
    found = step_of(
        plans.config(), 512, prefill=once, layer_decode_weights=once, grow_cache=once, reward=once
    )
    # Two layers; the caches grow once from 256 to 512.
    assert {name: time.serial for name, time in found.phases.items()} == {
        "prefill": 1,
        "layer_decode_weights": 2,
        "grow_cache": 1,
        "reward": 1,
    }
    assert (found.step, found.hidden) == (5, 5)
    assert found.generated_per_second == 8 * 4 * 512 / 5
    assert found.epoch == 10 * 5  # 80 questions, 8 a step
    decoded = step_of(plans.config(), 512, decode=(never, (100, 0, 0)))
    assert decoded.phases["decode"].products == decoded.decode_steps == 512


def test_an_update_has_as_many_micro_batches_as_the_effective_groups_fill():
    turn = ((7, 0, 0), (100, 0, 0))
    whole = step_of(plans.config(), 512, update=turn)
    half = step_of(plans.config(), 512, effective=0.5, update=turn)
    # 8 groups of 4, in micro-batches of 16 sequences.
    assert (whole.micro_batches, half.micro_batches) == (2, 1)
    assert whole.work["update"].flops == 207
    assert half.work["update"].flops == 107


def test_several_updates_and_a_reference_are_counted():
    turn = ((100, 0, 0), (0, 0, 0))
    config = plans.config(update={"mini_batches": 2, "epochs": 3})
    found = step_of(config, 512, update=turn, score=turn)
    assert found.phases["update"].serial == 6
    assert found.phases["score"].serial == 2  # the sampling policy's, once for each mini-batch
    with_kl = dataclasses.replace(config, loss=dataclasses.replace(config.loss, kl_coef=0.1))
    assert step_of(with_kl, 512, score=turn).phases["score"].serial == 4


def test_fewer_slots_take_more_steps_and_refills():
    step, once = ((0, 0, 0), (100, 0, 0)), ((100, 0, 0), (0, 0, 0))
    wide, narrow = (
        step_of(plans.config(slots=slots), 512, decode=step, refill=once) for slots in (None, 8)
    )
    assert narrow.decode_steps == 4 * wide.decode_steps
    assert wide.phases["refill"].serial == 1
    assert narrow.phases["refill"].serial == 1 + 6  # two slots a data shard, refilled one by one


def test_collectives_of_a_step_add_up():
    config = plans.config()
    one = plans.cost(1)._replace(
        collectives={"all-gather": 5.0}, iteration_collectives={"all-reduce": 2.0}
    )
    found = expect(
        plans.step(config),
        config,
        {
            plans.named("update"): one,
            plans.named("prefill"): one._replace(iteration_collectives={}),
        },
        CHIP,
        512,
        effective=1.0,
        questions=8,
    )
    assert found.collectives == {"all-gather": 10, "all-reduce": 4}
