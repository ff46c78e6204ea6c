"""The plan command: what it prints and ends with, for devices with and without a compiler."""

import importlib.util
import json
import sys

import plans
import pytest
from helpers import needs_libtpu

from alphamed_jax import plan
from alphamed_jax.planning.measure import compiling
from alphamed_jax.runtime.streams import say

LLAMA_3B = "meta-llama/Llama-3.2-3B-Instruct"
LLAMA_8B = "meta-llama/Llama-3.1-8B-Instruct"
KEYS = {"fits", "hbm_bytes", "hbm_capacity_bytes", "step_seconds_estimate", "phases"}


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command; its exit status, text and, with --json, the object of its last line."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["plan", *map(str, arguments)])
        status = 0
        try:
            plan.main()
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        lines = captured.out.splitlines()
        last = json.loads(lines[-1]) if "--json" in arguments and lines else None
        return status, captured.out, captured.err, last

    return command


GPUS = ("--model", LLAMA_8B, "--topology", "h100:8", "--mesh", "8x1")


def test_gpus_get_the_same_plan_from_shapes_marked_as_an_estimate(run):
    status, text, _, found = run(*GPUS, "--json")
    assert status == 0
    assert set(found) >= KEYS
    assert found["estimated"]
    assert all(
        phase["estimated"] for name, phase in found["phases"].items() if name != "checkpoint"
    )
    assert "All figures are estimates from shapes" in text
    assert found["hbm_bytes"] == max(phase["hbm_bytes"] for phase in found["phases"].values())
    assert found["fits"] == all(phase["fits"] for phase in found["phases"].values())
    # 8 G weights in float32, two moments, over eight devices; then a copy for a checkpoint.
    state = 3 * 4 * 8.03e9 / 8
    assert found["phases"]["checkpoint"]["hbm_bytes"] == pytest.approx(2 * state, rel=1e-3)
    assert found["peaks"]["flops"] == 989e12


def test_the_time_of_a_step_is_that_of_its_phases_at_the_longest_expected_length(run):
    *_, found = run(*GPUS, "--json", "--response-lengths", 128, 512, "--questions", 640)
    assert [row["mean_tokens"] for row in found["expected"]] == [128, 512]
    last = found["expected"][-1]
    assert found["step_seconds_estimate"] == last["step_seconds"]
    assert sum(last["phase_seconds"].values()) == pytest.approx(last["step_seconds"])
    assert last["epoch_seconds"] == pytest.approx(10 * last["step_seconds"])
    assert found["expected"][0]["step_seconds"] < last["step_seconds"]


def test_any_setting_of_training_can_be_tried(run):
    *_, usual = run(*GPUS, "--json")
    *_, small = run(*GPUS, "--json", "--update.micro-batch", 8, "--rollout.slots", 64)
    for name in ("update", "decode"):
        assert small["phases"][name]["hbm_bytes"] < usual["phases"][name]["hbm_bytes"]
    assert small["workload"]["slots"] == 64


@pytest.mark.slow
def test_what_does_not_fit_comes_with_settings_that_do(run):
    few = (*GPUS, "--hbm-gb", 36)
    status, text, _, found = run(*few, "--json")
    assert (status, found["fits"]) == (0, False)
    assert "DOES NOT FIT" in text
    assert found["suggestion"]["fits"]
    flags = found["suggestion"]["flags"]
    assert "--rollout.slots" in flags
    assert f"    {flags}" in text.splitlines()
    # And so they do.
    *_, mended = run(*few, "--json", *flags.split())
    assert mended["fits"]
    assert mended["hbm_bytes"] == found["suggestion"]["hbm_bytes"]


def test_where_nothing_helps_it_says_so(run):
    _, text, _, found = run(*GPUS, "--hbm-gb", 5, "--json")
    assert not found["fits"]
    assert found["suggestion"] is None or not found["suggestion"]["fits"]
    assert "take more chips" in text or "nor did what was tried" in text


def test_a_plan_that_does_not_fit_is_a_failure_only_with_check(run):
    tight = (*GPUS, "--hbm-gb", 5, "--no-search")
    assert run(*tight)[0] == 0
    assert run(*tight, "--check")[0] == 1
    assert run(*GPUS, "--check")[0] == 0


@pytest.mark.slow
def test_what_a_machine_can_train_is_answered_with_settings_that_fit(run):
    asked = ("--suggest", "h100:1", "--model", LLAMA_8B)
    status, text, _, found = run(*asked, "--json")
    assert status == 0
    full, adapters = found["offers"]
    assert (full["adapters"], full["fits"]) == (False, False)  # 16 bytes a parameter: 128 GB
    assert adapters["fits"]
    assert f"    {adapters['flags']}" in text.splitlines()
    *_, again = run("--topology", "h100:1", "--json", *adapters["flags"].split())
    assert again["fits"]
    assert again["hbm_bytes"] == adapters["hbm_bytes"]


def test_tpus_can_be_estimated_without_libtpu(run, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    asked = ("--topology", "v5e:2x4", "--mesh", "4x2", "--model", "meta-llama/Llama-3.2-1B")
    status, text, _, found = run(*asked, "--estimate", "--json")
    assert (status, found["estimated"]) == (0, True)
    assert found["peaks"]["flops"] == 197e12
    assert "nothing was compiled" in text


@pytest.mark.slow
def test_scaling_prints_a_table_and_ends_with_json(run):
    status, text, _, found = run(*GPUS, "--scaling", "--json")
    assert status == 0
    assert [row["chips"] for row in found["scaling"]] == [16, 64, 256]
    assert text.count("| h100:") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--topology", "h100:8", "--mesh", "4x4"), "needs 16 devices"),
        (("--topology", "v9:2x2"), "unknown devices 'v9'"),
        (("--suggest", "v9:2x2"), "--suggest v9:2x2: unknown devices 'v9'"),
        (("--suggest", "h100:x"), "--suggest h100:x: expected a number of devices"),
        (("--suggest", "h100:8", "--topology", "h100:8"), "as --topology v5e:8x8, or ask"),
        ((), "as --topology v5e:8x8, or ask"),
        (("--topology", "h100:16", "--mesh", "1x16", "--model", LLAMA_3B), "does not fit 24 query"),
        (("--topology", "h100:8", "--config", "nowhere.yaml"), "no such file"),
    ],
)
def test_bad_input_is_one_line_and_status_2(run, arguments, message):
    status, out, err, _ = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_without_libtpu_the_way_to_get_it_is_said(run, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    status, _, err, _ = run("--topology", "v5e:2x4", "--mesh", "4x2")
    assert status == 2
    assert "pip install -e '.[plan]'" in err


def test_progress_goes_to_stderr(capsys):
    say("compiling")
    assert capsys.readouterr() == ("", "compiling\n")


@pytest.fixture
def small(tmp_path):
    """Flags for a model that compiles in seconds."""
    sizes = {"vocab_size": 32768, "hidden_size": 256, "intermediate_size": 512, "head_dim": 32}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(sizes | {"model_type": "llama"}))
    # All logits of a micro-batch at once, so that the update needs most memory.
    work = ("--rollout.prompts", 8, "--rollout.group-size", 8, "--rollout.max-new-tokens", 128)
    update = ("--update.micro-batch", 64, "--update.logits-chunk", 16384)
    return ("--model", tmp_path, "--prompt-tokens", 64, *work, *update)


@needs_libtpu
@pytest.mark.slow
def test_a_small_model_is_planned_for_tpus_and_gets_settings_that_fit(run, small):
    on = (*small, "--topology", "v5e:2x4", "--mesh", "2x4", "--json")
    status, text, err, found = run(*on)
    assert status == 0
    assert found["fits"]
    assert set(found) >= KEYS
    assert not found["estimated"]
    assert "compiling update" in err
    phases = found["phases"]
    rollout = {"layer_decode_weights", "head_decode_weights", "prefill", "refill", "decode"}
    assert set(phases) == rollout | {"reward", "update", "checkpoint"}
    for name in ("prefill", "decode", "update"):
        assert phases[name]["flops"] > 0
        assert phases[name]["collective_bytes"]["all-reduce"] > 0
    assert phases["update"]["collective_bytes"]["all-gather"] > 0
    assert phases["update"]["memory"]["temporaries"] > 0
    assert found["hbm_capacity_bytes"] == 15.75 * 2**30
    assert found["step_seconds_estimate"] > 0

    # Given less memory than the update needs, but enough for all else,
    *_, second, largest = sorted(phase["hbm_bytes"] for phase in phases.values())
    assert largest == phases["update"]["hbm_bytes"]
    room = (0.4 * second + 0.6 * largest) / 0.98
    _, text, _, tight = run(*on, "--hbm-gb", room / 2**30)
    assert not tight["fits"]
    assert "DOES NOT FIT" in text
    # then smaller micro-batches, compiled, fit.
    suggestion = tight["suggestion"]
    assert suggestion["fits"]
    assert suggestion["flags"].startswith("--update.micro-batch")
    assert suggestion["hbm_bytes"] <= 0.98 * room


@needs_libtpu
@pytest.mark.slow
def test_what_no_chip_can_hold_is_refused_by_the_compiler_and_estimated(capsys):
    config = plans.config("2x4", prompts=4096, group_size=256, max_new_tokens=4096)
    step = plans.step(config, topology="v5e:2x4")
    cost = compiling(plans.named("grow_cache"), step)
    assert cost.refused
    assert cost.estimated
    assert cost.peak > 15.75 * 2**30
    assert f" s: {cost.refused}" in capsys.readouterr().err
