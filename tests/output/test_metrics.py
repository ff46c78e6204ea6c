"""The record of a run: each step once, strict JSON, fixed keys, one writing process."""

import json
import math
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboardX.proto.event_pb2 import Event

from alphamed_jax.errors import UserError
from alphamed_jax.output.metrics import (
    METRIC_KEYS,
    SAMPLE_KEYS,
    MetricsLog,
    Sample,
    numeric_leaves,
    read_rows,
    write_atomically,
)

DESIGN_KEYS = [
    "step",
    "time/rollout",
    "time/update",
    "time/step",
    "reward/mean",
    "reward/std",
    "reward/no_answer",
    "groups/effective",
    "groups/all_right",
    "groups/all_wrong",
    "response_length/mean",
    "response_length/max",
    "response_length/truncated",
    "loss/policy",
    "loss/kl",
    "clip/low",
    "clip/high",
    "entropy",
    "ratio/mean",
    "sampler_gap/mean",
    "sampler_gap/max",
    "grad_norm",
    "learning_rate",
    "tokens/generated",
    "tokens/trained",
    "throughput/generated_per_second",
    "throughput/trained_per_second",
]


def metrics(**changes: float | None) -> dict[str, float | int | None]:
    return {key: 0.5 for key in METRIC_KEYS if key != "step"} | changes


def sample(**changes: object) -> Sample:
    fields = {
        "question_id": "gout/3",
        "prompt": "Which drug?",
        "response": "\\boxed{B}",
        "answer": "B",
        "extracted": "B",
        "reason": "ok",
        "reward": 1.0,
        "advantage": 0.7,
    }
    return Sample(**(fields | changes))


def run_steps(folder: Path, first: int, last: int, value: float, resume_step: int) -> None:
    """Train steps first..last, in which every metric and reward is `value`, then die."""
    log = MetricsLog(folder, resume_step=resume_step)
    for step in range(first, last + 1):
        log.log(step, dict.fromkeys(metrics(), value))
        log.log_samples(step, [sample(reward=value), sample(reward=value)])
        log.log_eval(step, {"questions": 10, "sampled": {"accuracy": value}})


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def events(folder: Path) -> list[Event]:
    """All events under a folder, oldest file first: length, checksum, data, checksum."""
    found = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name.split(".from_step_")[-1]):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def test_the_metric_keys_are_those_users_rely_on():
    assert [key for key in METRIC_KEYS if key in DESIGN_KEYS] == DESIGN_KEYS
    own = {"updates/skipped", "tis/weight", "tis/truncated"}
    own |= {"rollout/rounds", "tokens/trained_share", "answers/baseline", "answers/most_frequent"}
    own |= {f"answers/{letter}" for letter in "ABCDEFGHIJ"}
    pools = ("hard", "normal", "easy", "unseen")
    own |= {f"{of}/{pool}" for of in ("pools", "drawn") for pool in pools}
    own |= {"reward/shaped", "reward/overlong", "reward/length_penalty", "loss/left_out"}
    assert set(METRIC_KEYS) - set(DESIGN_KEYS) == own
    assert all(meaning for meaning in METRIC_KEYS.values())


def test_a_row_holds_every_key_in_the_fixed_order(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.log(1, dict(reversed(metrics().items())))
    (row,) = lines(tmp_path / "metrics.jsonl")
    assert list(row) == list(METRIC_KEYS)
    assert row["step"] == 1


def test_a_sample_row_holds_what_the_table_shows(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.log_samples(4, [sample(), sample(extracted=None, reason="no_box", reward=0.0)])
    first, second = lines(tmp_path / "samples.jsonl")
    assert list(first) == list(SAMPLE_KEYS)
    assert " ".join(first) == (
        "step question_id prompt response answer extracted reason reward advantage"
    )
    assert (second["step"], second["extracted"], second["reason"]) == (4, None, "no_box")


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize(
    ("row", "said"),
    [
        (metrics() | {"reward/meen": 1.0}, "unknown metric 'reward/meen'. Did you mean 'reward/me"),
        ({k: v for k, v in metrics().items() if k != "entropy"}, "step 1 lack entropy"),
        (metrics() | {"step": 1}, "unknown metric 'step'"),
    ],
)
def test_unknown_or_missing_keys_are_refused_in_every_process(tmp_path, enabled, row, said):
    log = MetricsLog(tmp_path / "run", enabled=enabled)
    with pytest.raises(ValueError, match=said):
        log.log(1, row)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_step_is_logged_once(tmp_path):
    log = MetricsLog(tmp_path, resume_step=3)
    with pytest.raises(ValueError, match="step 3 was logged already"):
        log.log(3, metrics())
    log.log(4, metrics())
    with pytest.raises(ValueError, match="step 4 was logged already"):
        log.log(4, metrics())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_what_is_not_finite_becomes_null(tmp_path, value):
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    with MetricsLog(tmp_path) as log:
        log.log(1, metrics(grad_norm=value))
        log.log_samples(1, [sample(advantage=math.nan)])
        log.log_eval(0, {"sampled": {"accuracy": value}, "list": [value]})
    for name in ("metrics.jsonl", "samples.jsonl", "eval/step_000000.json"):
        json.loads((tmp_path / name).read_text(), parse_constant=refuse)
    assert lines(tmp_path / "metrics.jsonl")[0]["grad_norm"] is None
    assert json.loads((tmp_path / "eval/step_000000.json").read_text()) == {
        "sampled": {"accuracy": None},
        "list": [None],
        "step": 0,
    }


@settings(max_examples=30)  # each example writes to the disk
@given(text=st.text(st.characters(categories=None), max_size=40))
def test_any_text_stays_one_line_and_comes_back(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("run")
    with MetricsLog(folder) as log:
        log.log_samples(1, [sample(response=text)])
    (row,) = lines(folder / "samples.jsonl")
    assert row["response"] == text


@pytest.mark.parametrize("enabled", [True, False])
def test_only_the_first_process_writes(tmp_path, enabled):
    folder = tmp_path / "run"
    with MetricsLog(folder, enabled=enabled) as log:
        log.log(1, metrics())
        log.log_samples(1, [sample()])
        log.log_eval(1, {"questions": 1})
    assert folder.exists() == enabled


@settings(max_examples=20)
@given(checkpoint=st.integers(0, 5), died=st.integers(0, 5))
def test_resuming_takes_back_what_came_after_the_checkpoint(tmp_path_factory, checkpoint, died):
    # Given a run that died some steps after its newest checkpoint,
    folder = tmp_path_factory.mktemp("run")
    died = max(checkpoint, died)
    run_steps(folder, 1, died, value=0.25, resume_step=0)
    # when it is started again from there,
    run_steps(folder, checkpoint + 1, 6, value=0.75, resume_step=checkpoint)
    # then each step stands there once, from the run that counts.
    expected = [0.25] * checkpoint + [0.75] * (6 - checkpoint)
    rows, samples = lines(folder / "metrics.jsonl"), lines(folder / "samples.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["reward/mean"] for row in rows] == expected
    assert [row["reward"] for row in samples] == [value for value in expected for _ in range(2)]
    accuracies = [
        json.loads(path.read_text())["sampled"]["accuracy"]
        for path in sorted((folder / "eval").iterdir())
    ]
    assert accuracies == expected


def test_evaluations_after_the_checkpoint_are_taken_back_and_others_stay(tmp_path):
    with MetricsLog(tmp_path) as log:
        for step in (0, 2, 3, 4):
            log.log_eval(step, {"questions": 3})
    (tmp_path / "eval" / "notes.txt").write_text("mine")
    MetricsLog(tmp_path, resume_step=2).close()
    names = {path.name for path in (tmp_path / "eval").iterdir()}
    assert names == {"step_000000.json", "step_000002.json", "notes.txt"}


@pytest.mark.parametrize("kept", range(1, 60, 7))
def test_a_line_torn_by_a_crash_is_dropped(tmp_path, kept):
    with MetricsLog(tmp_path) as log:
        log.log(1, metrics())
        log.log(2, metrics())
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    path.write_bytes(whole[: first + kept])
    with MetricsLog(tmp_path, resume_step=1) as log:
        log.log(2, metrics())
    assert path.read_bytes() == whole


def test_a_character_torn_by_a_crash_is_dropped(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_bytes('{"step": 1}\n{"step": 2, "response": "µ'.encode()[:-1])
    assert read_rows(path) == [{"step": 1}]


def test_a_whole_last_line_without_its_line_feed_is_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    MetricsLog(tmp_path, resume_step=2).close()
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize("bad", ["{", "[1]", '{"step": "1"}', '{"step": true}', "", "\udcff"])
def test_any_other_broken_line_is_named(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    content = f'{{"step": 1}}\n{bad}\n{{"step": 3}}\n'
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: expected a JSON object"):
        MetricsLog(tmp_path, resume_step=3)
    assert path.read_bytes() == content.encode(errors="surrogateescape")


def test_an_output_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another with --output"):
        MetricsLog(tmp_path / "file")


def test_tensorboard_has_the_same_scalars_and_hides_steps_that_were_taken_back(tmp_path):
    run_steps(tmp_path, 1, 4, value=0.25, resume_step=0)
    run_steps(tmp_path, 3, 4, value=0.75, resume_step=2)
    shown: dict[tuple[str, int], float] = {}
    for event in events(tmp_path / "tensorboard"):
        if event.HasField("session_log"):  # from here on, later steps of older files do not count
            shown = {key: value for key, value in shown.items() if key[1] < event.step}
        for value in event.summary.value:
            assert (value.tag, event.step) not in shown
            shown[value.tag, event.step] = value.simple_value
    tags = {tag for tag, _ in shown}
    assert tags == set(METRIC_KEYS) - {"step"} | {"eval/questions", "eval/sampled/accuracy"}
    assert [shown["entropy", step] for step in (1, 2, 3, 4)] == [0.25, 0.25, 0.75, 0.75]


def test_scalars_reach_the_disk_without_closing(tmp_path):
    log = MetricsLog(tmp_path)
    log.log(1, metrics(grad_norm=math.nan))
    tags = {v.tag for event in events(tmp_path / "tensorboard") for v in event.summary.value}
    assert tags == set(METRIC_KEYS) - {"step", "grad_norm"}
    log.close()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_text() == "old"
    write_atomically(path, "new")
    assert path.read_text() == "new"


def test_numeric_leaves_keep_their_path():
    tree = {"a": 1, "b": {"c": 0.5, "name": "x", "d": {"e": 2, "flag": True}}, "none": None}
    assert numeric_leaves(tree) == [(("a",), 1), (("b", "c"), 0.5), (("b", "d", "e"), 2)]
