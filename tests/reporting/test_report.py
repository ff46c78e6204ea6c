"""The report: one self-contained page, true to the files, whatever the run looked like."""

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from alphamed_jax.errors import UserError
from alphamed_jax.output.metrics import METRIC_KEYS, MetricsLog, Sample
from alphamed_jax.reporting.charts import (
    SMOOTHED_FROM,
    WIDTH,
    Series,
    beyond_note,
    line_chart,
    running_median,
    ticks,
    value_limits,
)
from alphamed_jax.reporting.curves import FIGURES
from alphamed_jax.reporting.render import write_report

VOID = {"meta", "br", "hr", "img", "input", "link"}
ATTACK = "</pre><script>alert('x')</script><img src=x onerror=alert(1)> & \x1b[31m\u202e"
RUN_JSON = {
    "name": "quickstart",
    "model": "org/model",
    "parameters": 1234567,
    "devices": "8 x cpu",
    "mesh": {"fsdp": 8, "tensor": 1},
    "versions": {"jax": "0.10.2", "flax": "0.12.8"},
    "wall_seconds": 3840.5,
    "first_step_seconds": 23.41,
    "programs_compiled": 14,
    "compile_seconds": 12.06,
    "programs_cached": 9,
    "command": "python -m alphamed_jax.train --steps 3",
}


class Page(HTMLParser):
    """Refuses a page whose tags do not close in order; collects tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def metrics(**changes: float | None) -> dict[str, float | None]:
    return {key: 0.25 for key in METRIC_KEYS if key != "step"} | changes


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


def part(accuracy: float | None, **more: object) -> dict[str, object]:
    return {"accuracy": accuracy, "no_answer": 0.02, "length_mean": 9.5, "truncated": 0.0} | more


def make_run(folder: Path, steps: int, evaluations: dict[int, float]) -> Path:
    with MetricsLog(folder) as log:
        for step in range(1, steps + 1):
            log.log(step, metrics())
            log.log_samples(step, [sample(response=f"response of step {step}")])
        for step, accuracy in evaluations.items():
            log.log_eval(
                step,
                {
                    "questions": 200,
                    "samples_per_question": 4,
                    "sampled": part(accuracy, total=800),
                    "greedy": part(accuracy / 2, total=200),
                    "by_source": {"medqa": {"greedy": part(accuracy / 4, total=50)}},
                },
            )
    (folder / "config.yaml").write_text("model: org/model\nseed: 17\nsteps: 3\ndata:\n- medqa\n")
    (folder / "run.json").write_text(json.dumps(RUN_JSON))
    return folder


def page_of(folder: Path) -> Page:
    path = write_report(folder)
    assert path == folder / "report.html"
    return Page(path.read_text())


def points(svg: str, color: int = 1, kind: str = "line|raw|area") -> int:
    """Number of steps drawn of one series."""
    lines = re.findall(rf'<polyline class="(?:{kind}) c{color}" points="([^"]*)"', svg)
    dots = re.findall(rf'<circle class="(?:{kind}) c{color}"', svg)
    return sum(len(line.split()) for line in lines) + len(dots)


def test_the_page_says_what_it_took_until_the_first_step(tmp_path):
    folder = make_run(tmp_path / "run", 3, {})
    assert "23.4 s: 14 programs compiled in 12.1 s, 9 from the cache" in page_of(folder).text
    # A start that took no step has none, and the record of an older version does not say.
    for changed in ({"first_step_seconds": None}, {}):
        record = {k: v for k, v in RUN_JSON.items() if k != "first_step_seconds"} | changed
        (folder / "run.json").write_text(json.dumps(record))
        assert "Until the first step" not in page_of(folder).text


def test_the_page_says_what_ran(tmp_path):
    text = page_of(make_run(tmp_path / "my run", 3, {0: 0.4, 3: 0.8})).text
    for words in (
        "my run",
        "quickstart",
        "org/model",
        "1,234,567",
        "8 x cpu",
        "fsdp 8, tensor 1",
        "jax 0.10.2, flax 0.12.8",
        "Seed 17",
        "1h 04m",
        "python -m alphamed_jax.train --steps 3",
        "3 of 3",
        "seed: 17",
    ):
        assert words in text


def test_the_page_needs_nothing_from_outside(tmp_path):
    folder = make_run(tmp_path, 3, {0: 0.4})
    page = page_of(folder)
    assert not {"script", "link", "img", "iframe", "object", "image", "use"} & set(page.tags)
    assert not {"src", "href", "xlink:href", "style"} & {name for name, _ in page.attributes}
    assert not any(name.startswith("on") for name, _ in page.attributes)
    html = (folder / "report.html").read_text()
    assert "url(" not in html
    assert "@import" not in html
    assert "prefers-color-scheme: dark" in html


def test_the_page_holds_every_evaluation_with_its_interval(tmp_path):
    accuracies = {0: 0.4, 2: 0.52, 4: 0.64, 6: 0.76}
    text = page_of(make_run(tmp_path, 6, accuracies)).text
    for accuracy in accuracies.values():
        assert f"{accuracy:.3f}" in text
        assert f"{accuracy / 2:.3f}" in text
    # 4 samples of a question are not 4 questions: both intervals are over 200.
    assert "0.400 [0.335, 0.469]" in text
    assert "0.200 [0.150, 0.261]" in text
    # A source by itself has 50.
    assert "0.100 [0.043, 0.214]" in text
    assert "before, step 0" in text
    assert "after, step 6" in text
    assert "+36.0 points" in text


def test_any_further_number_of_an_evaluation_is_shown(tmp_path):
    make_run(tmp_path, 1, {})
    with MetricsLog(tmp_path, resume_step=1) as log:
        log.log_eval(0, {"questions": 8, "sampled": part(0.5, steps_share=0.35, brier=0.1234)})
        log.log_eval(1, {"questions": 8, "sampled": part(None), "calibration": {"bins": 17}})
    text = page_of(tmp_path).text
    assert "reasons in steps 0.35 –" in text
    assert "brier 0.123 –" in text
    assert "bins – 17" in text
    assert "accuracy 0.500 [0.215, 0.785] – –" in text


def test_what_a_model_says_stays_text(tmp_path):
    make_run(tmp_path / "<b>run", 1, {0: 0.4})
    folder = tmp_path / "<b>run"
    with MetricsLog(folder, resume_step=1) as log:
        attacked = sample(response=ATTACK, prompt=ATTACK, question_id=ATTACK, extracted=ATTACK)
        log.log(2, metrics())
        log.log_samples(2, [attacked])
        log.log_eval(2, {"questions": 2, ATTACK: {"<i>": 1}, "by_source": {ATTACK: part(0.5)}})
    (folder / "config.yaml").write_text(f"model: {json.dumps(ATTACK)}\n")
    (folder / "run.json").write_text(json.dumps({"command": ATTACK, "versions": {ATTACK: ATTACK}}))
    page = page_of(folder)
    assert not {"script", "img", "b<", "i"} & set(page.tags)
    assert page.text.count("<script>alert('x')</script>") >= 8
    html = (folder / "report.html").read_text()
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_samples_are_of_the_start_the_middle_and_the_end(tmp_path):
    text = page_of(make_run(tmp_path, 9, {})).text
    shown = [int(step) for step in re.findall(r"response of step (\d+)", text)]
    assert shown == [1, 5, 9]


def test_a_response_without_an_answer_says_why(tmp_path):
    make_run(tmp_path, 1, {})
    with MetricsLog(tmp_path, resume_step=1) as log:
        log.log_samples(2, [sample(extracted=None, reason="not_one_letter", reward=0.0)])
    assert "extracted none (not_one_letter) right answer B reward 0" in page_of(tmp_path).text


@pytest.mark.parametrize("steps", [1, 2, 7, SMOOTHED_FROM + 5])
def test_every_chart_has_one_point_per_step(tmp_path, steps):
    folder = make_run(tmp_path, steps, {})
    write_report(folder)
    figures = re.findall(r"<figure>.*?</figure>", (folder / "report.html").read_text(), re.S)
    assert len(figures) == len(FIGURES)
    for figure, html in zip(FIGURES, figures, strict=True):
        drawings = re.findall(r"<svg.*?</svg>", html, re.S)
        for plot, svg in zip(figure.plots, drawings, strict=True):
            colors = {color for _, color in plot.keys.values()}
            assert len(colors) == len(plot.keys)
            for color in colors:
                if plot.stacked:
                    edges = re.findall(rf'class="(?:area|bar) c{color}" points="([^"]*)"', svg)
                    assert sum(len(edge.split()) for edge in edges) == 2 * steps
                else:
                    assert points(svg, color) == steps


def test_every_curve_is_of_a_known_metric():
    keys = {key for figure in FIGURES for plot in figure.plots for key in plot.keys}
    assert keys < set(METRIC_KEYS)


def test_missing_values_leave_gaps(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.log(1, dict.fromkeys(metrics(), None))
        log.log(2, metrics(grad_norm=float("nan")))
        log.log(3, metrics(**{"groups/effective": None}))
    page = page_of(tmp_path)
    assert page.tags.count("figure") == len(FIGURES)
    assert "1 of 3 steps, last step 2. grad_norm is not finite" in page.text
    svg = line_chart([1, 2, 3, 4], [Series("x", [1.0, None, 2.0, 3.0])])
    assert points(svg) == 3
    assert svg.count("<circle") == 1
    assert svg.count("<polyline") == 1


def test_a_run_that_did_not_take_a_step_has_a_page(tmp_path):
    folder = make_run(tmp_path, 0, {0: 0.4})
    assert "No step has been taken yet." in page_of(folder).text


def test_configuration_record_and_samples_may_be_missing(tmp_path):
    folder = make_run(tmp_path, 2, {})
    for name in ("config.yaml", "run.json", "samples.jsonl"):
        (folder / name).unlink()
    assert "2" in page_of(folder).text


@pytest.mark.parametrize(
    "odd", [{"first_step_seconds": 8.0}, RUN_JSON | {"programs_cached": "all"}]
)
def test_a_record_that_lacks_a_number_of_the_first_step_leaves_that_line_out(tmp_path, odd):
    folder = make_run(tmp_path, 2, {})
    (folder / "run.json").write_text(json.dumps(odd))
    assert "Until the first step" not in page_of(folder).text


def test_the_page_of_a_growing_run_leaves_a_torn_line_out(tmp_path):
    folder = make_run(tmp_path, 2, {})
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "ti')
    assert "2 of 3" in page_of(folder).text


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metrics.jsonl", "{\n{}\n", r"metrics\.jsonl, line 1"),
        ("config.yaml", "a: [", r"config\.yaml: not YAML"),
        ("run.json", "{", r"run\.json: not JSON"),
        ("run.json", "[]", r"run\.json: expected a JSON object"),
        ("eval/step_000000.json", "{}", "no whole number as `step`"),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, content, said):
    folder = make_run(tmp_path, 1, {0: 0.4})
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=said):
        write_report(folder)
    assert not (folder / "report.html").exists()


def run_command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "alphamed_jax.report", *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )


def test_the_command_writes_the_page_and_names_what_is_wrong(tmp_path):
    folder = make_run(tmp_path / "run", 1, {0: 0.4})
    done = run_command(str(folder))
    assert (done.returncode, done.stdout.strip()) == (0, str(folder / "report.html"))
    assert (folder / "report.html").exists()
    (tmp_path / "empty").mkdir()
    for bad, said in (("nowhere", "no such folder"), ("empty", "neither metrics.jsonl nor eval/")):
        failed = run_command(str(tmp_path / bad))
        assert failed.returncode == 2
        assert len(failed.stderr.splitlines()) == 1
        assert said in failed.stderr


def test_help_teaches():
    done = run_command("--help")
    assert done.returncode == 0
    assert "DIR" in done.stdout
    assert "output folder" in done.stdout
    assert "report.html" in done.stdout


@given(st.floats(-100.0, 100.0), st.floats(1e-12, 1e12))
def test_ticks_are_few_and_between_the_limits(offset, size):
    low, high = offset * size, (offset + 1.0) * size
    marks = ticks(low, high)
    assert 2 <= len(marks) <= 6
    assert marks == sorted(set(marks))
    assert all(low - 1e-6 * size <= mark <= high + 1e-6 * size for mark in marks)


@given(
    st.lists(
        st.none() | st.just(math.nan) | st.just(math.inf) | st.floats(-1e38, 1e38), max_size=60
    ),
    st.booleans(),
)
def test_any_values_can_be_drawn(values, stacked):
    series = [Series("x", values), Series("y", values[::-1], color=2)]
    svg = line_chart(list(range(len(values))), series, stacked=stacked)
    Page(svg)
    assert "nan" not in svg
    for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", " ".join(re.findall(r'points="(.*?)"', svg))):
        assert 0 <= float(x) <= WIDTH
        assert 0 <= float(y) <= 170


def test_a_spike_leaves_the_axis_and_a_note():
    values = [1.0] * 30 + [400.0] + [1.0] * 30
    low, high = value_limits([values])
    assert low == 0.0
    assert 1.0 < high < 2.0
    assert "1 value lies above the axis, up to 400." in beyond_note([Series("x", values)])
    assert beyond_note([Series("x", [1.0, 2.0])]) == ""


def test_the_running_median_ignores_a_spike_and_keeps_gaps():
    assert running_median([1.0, 1.0, 99.0, None, 1.0, 1.0], window=3) == [
        1.0,
        1.0,
        1.0,
        None,
        1.0,
        1.0,
    ]


def test_a_series_has_a_value_for_each_step():
    with pytest.raises(ValueError, match="2 values for 3 steps"):
        line_chart([1, 2, 3], [Series("x", [1.0, 2.0])])
