"""The programs of training: their number follows from the shapes there are, not from the steps."""

import dataclasses
from collections import Counter

import jax
import numpy as np
import pytest
from helpers import a_policy, some_devices
from jax.sharding import AxisType
from tiny_run import tiny_config, write_model

from alphamed_jax.compiled.topology import CHIPS
from alphamed_jax.config import OptimizerConfig, RolloutConfig, UpdateConfig
from alphamed_jax.data.draws import Draws
from alphamed_jax.data.prompts import Prompt
from alphamed_jax.data.questions import Question
from alphamed_jax.data.tokenizer import load_tokenizer
from alphamed_jax.model import hf
from alphamed_jax.model.mesh import AXES
from alphamed_jax.planning.devices import Devices
from alphamed_jax.planning.step import planned_step
from alphamed_jax.programs import PROGRAMS
from alphamed_jax.programs.record import Variety
from alphamed_jax.rl import batch, mini_batches
from alphamed_jax.rl.batch import row_counts
from alphamed_jax.rl.buckets import bucket, capacities
from alphamed_jax.rl.reward import AnswerAutomaton
from alphamed_jax.rl.slots import compacted_size
from alphamed_jax.rl.step import grpo_step
from alphamed_jax.rl.update import init_state
from alphamed_jax.runtime.compilation import ProgramCounter

PROMPTS, GROUP, LONGEST, DATA_ROWS = 16, 4, 24, 2
STEPS = 20
# What runs between the large programs, on arrays as long as the batch or as there are slots: more
# than there are, fewer than if one of them were compiled anew in each step.
SMALL = 40


@pytest.fixture
def made():
    """How often a program of each name was compiled."""
    found = Counter()

    def listen(event, duration, **facts):
        if event == "/jax/core/compile/backend_compile_duration":
            found[facts["fun_name"].removeprefix("jit(").removesuffix(")")] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def plans(monkeypatch):
    """The plans of the updates that were taken."""
    found = []

    def plan_batch(*arguments, **options):
        found.append(batch.plan_batch(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(mini_batches, "plan_batch", plan_batch)
    return found


def random_steps(policy):
    """Steps with prompts of random lengths up to a random one, and random stop ids."""
    rng = np.random.default_rng(3)
    for number in range(1, STEPS + 1):
        longest = int(rng.integers(4, LONGEST + 1))
        questions = [
            Prompt(
                Question(f"q{i}", "?", ("a", "b"), "AB"[rng.integers(2)], "random"),
                rng.integers(0, 256, size=length).tolist(),
            )
            for i, length in enumerate(rng.integers(1, longest + 1, size=PROMPTS))
        ]
        # In some steps most responses end at once, in others hardly any does.
        stops = rng.choice(256, size=200, replace=False)
        stops[int(rng.integers(1, 200)) :] = stops[0]
        yield number, dataclasses.replace(policy, stop_ids=tuple(stops.tolist())), questions


@pytest.mark.slow
def test_twenty_steps_compile_as_many_programs_as_there_are_shapes(tmp_path, made, plans):
    # Given a run whose weights stand still, so that a second pass over its steps is the same,
    write_model(tmp_path / "model")
    config = tiny_config(
        tmp_path,
        tmp_path / "run",
        rollout=RolloutConfig(prompts=PROMPTS, group_size=GROUP, max_new_tokens=LONGEST),
        optimizer=OptimizerConfig(learning_rate=0.0),
        update=UpdateConfig(micro_batch=PROMPTS * GROUP, remat="none"),
    )
    devices = np.array(some_devices(DATA_ROWS)).reshape(1, DATA_ROWS, 1)
    mesh = jax.sharding.Mesh(devices, AXES, axis_types=(AxisType.Auto,) * 3)
    model, params = hf.load(tmp_path / "model", mesh, dtype=np.float32)
    automaton = AnswerAutomaton.from_tokenizer(load_tokenizer(tmp_path / "model"))
    width = bucket(LONGEST)  # of all prompts of a run
    policy = a_policy(config, model, mesh, automaton=automaton, width=width)
    state = init_state(policy.objective(config), params)
    made.clear()

    def one_pass(state):
        effective = set()
        for number, this, questions in random_steps(policy):
            state, _, scored = grpo_step(
                this, config, state, None, Draws(questions, config.seed), number
            )
            effective.add(int(scored.effective.sum()))
        return state, effective

    # when twenty steps are taken, with prompts, responses and effective groups of all kinds,
    with ProgramCounter() as programs, jax.set_mesh(mesh):
        state, effective = one_pass(state)
    assert len(effective) >= 4
    trained = [(x.prompt_width, x.width, x.rows, x.packed) for x in plans]
    shapes = set(trained)
    assert {shape[0] for shape in shapes} == {width}
    assert {shape[1] for shape in shapes} == {16, 24}

    # then the large programs are as many as their shapes:
    slots = PROMPTS * GROUP // DATA_ROWS
    stages = 2 if compacted_size(slots) else 1  # all slots, and the few that go on at the end
    assert compacted_size(compacted_size(slots)) == 0
    variety = Variety(stages, len(capacities(LONGEST)), len(shapes))
    planned = planned_step(config, model, Devices("cpu", mesh, CHIPS["v5e"], "cpu"), LONGEST)
    bounds = {p.function_name: p.most_versions(planned, variety) for p in PROGRAMS}
    for name, bound in bounds.items():
        assert min(bound, 1) <= made[name] <= bound, name
    counts = row_counts(GROUP, config.update.micro_batch, DATA_ROWS)
    assert len(shapes) <= 2 * len(counts) * 2  # widths; packed or not
    # all others are few,
    assert programs.compiled + programs.cached == sum(made.values())
    assert programs.compiled <= sum(bounds.values()) + SMALL, made
    # and the same steps again compile nothing at all.
    with ProgramCounter() as again, jax.set_mesh(mesh):
        one_pass(state)
    assert (again.compiled, again.cached) == (0, 0), made
