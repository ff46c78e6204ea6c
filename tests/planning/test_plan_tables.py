"""How numbers and tables read."""

import plans
import pytest

from alphamed_jax.compiled.topology import Chip
from alphamed_jax.planning import tables
from alphamed_jax.planning.fit import memory_of

CHIP = Chip(100e12, 16 * 2**30, 1e12, 1e11)


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (999, "999"), (1234, "1.23 k"), (5e12, "5 T"), (1.5e21, "1.5e+06 P")],
)
def test_large_numbers_have_a_prefix(number, shown):
    assert tables.scaled(number) == shown


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        (0, "0"),
        (1e-5, "< 1 ms"),
        (0.0123, "12.3 ms"),
        (99, "99 s"),
        (150, "2.5 min"),
        (7200, "2 h"),
    ],
)
def test_times_have_a_unit_that_fits(time, shown):
    assert tables.duration(time) == shown


def test_small_memory_is_not_shown_as_nothing():
    assert [tables.gib(size * 2**30) for size in (0, 4e-9, 0.0012, 1.5)] == [
        "0.00",
        "0.00",
        "0.0012",
        "1.50",
    ]


def test_a_table_is_aligned_markdown():
    assert tables.table(["name", "n"], [["a", "10"], ["longer", "7"]]).splitlines() == [
        "| name   |  n |",
        "|--------|---:|",
        "| a      | 10 |",
        "| longer |  7 |",
    ]


def test_what_does_not_fit_or_is_refused_or_estimated_is_seen():
    costs = {
        plans.named("update"): plans.cost(peak=17 * 2**30),
        plans.named("decode"): plans.cost(peak=2**30, refused="no room")._replace(estimated=True),
        plans.named("prefill"): plans.cost(peak=2**30),
    }
    phases = memory_of(plans.step(), costs, CHIP)
    rows = tables.memory_table(phases, costs, CHIP.memory).splitlines()[2:]
    ends = {row.split("|")[1].strip(): row.split("|")[-2].strip() for row in rows}
    refused = "NO: refused"
    assert ends == {"update": "NO", "decode": refused, "prefill": "yes", "checkpoint": "yes"}
    assert "1.00*" in next(row for row in rows if "decode" in row)


def test_a_phase_shows_its_work_and_what_bounds_it():
    cost = plans.cost(per_iteration=(1e12, 20e9, 1e9))
    cost = cost._replace(iteration_collectives={"all-gather": 2e9})
    (row,) = tables.phase_table({plans.named("decode"): cost}, CHIP).splitlines()[2:]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[:4] == ["decode, a step", "1 T", "20 GB", "all-gather 2 GB"]
    assert cells[4:] == ["10 ms", "20 ms", "10 ms", "30 ms", "memory"]
