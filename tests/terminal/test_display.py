"""What the terminal shows: the arithmetic of a step, its one line, warnings that name a cause."""

import io
import math
import os
import subprocess
import sys

import pytest
from rich.console import Console

from alphamed_jax.output.metrics import METRIC_KEYS, Sample
from alphamed_jax.terminal.display import (
    FILE_WIDTH,
    batch_arithmetic,
    evaluation_line,
    facts_panel,
    gave_up,
    letters_line,
    make_console,
    progress_line,
    question_lines,
    sample_table,
    show_first_prompt,
    start_panel,
    typical_seconds,
    warn,
)

HEALTHY = {key: 0.01 for key in METRIC_KEYS if key != "step"} | {
    "groups/effective": 0.6,
    "grad_norm": 1.2,
    "answers/baseline": 0.31,
    "answers/most_frequent": 0.94,
    "answers/B": 0.94,
    "reward/mean": 0.412,
    "response_length/mean": 14.2,
    "throughput/generated_per_second": 12345.0,
}


def shown(*renderables: object, width: int = FILE_WIDTH) -> str:
    """What a log file would hold."""
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False)
    for renderable in renderables:
        console.print(renderable)
    return file.getvalue()


def sample(**changes: object) -> Sample:
    fields = {
        "question_id": "gout/3",
        "prompt": "Which drug?",
        "response": "It is B. \\boxed{B}",
        "answer": "B",
        "extracted": "B",
        "reason": "ok",
        "reward": 1.0,
        "advantage": 0.731,
    }
    return Sample(**(fields | changes))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            {"micro_batch": 64},
            "16 prompts x 8 rollouts = 128 sequences -> 2 micro-batches of 64 -> 1 update",
        ),
        (
            {"micro_batch": 256},
            "16 prompts x 8 rollouts = 128 sequences -> 1 micro-batch of 128 -> 1 update",
        ),
        (
            {"micro_batch": 16, "mini_batches": 2, "epochs": 3},
            "16 prompts x 8 rollouts = 128 sequences -> 2 mini-batches of 64 -> "
            "4 micro-batches of 16 each -> 3 epochs -> 6 updates",
        ),
        (
            {"micro_batch": 64, "max_rounds": 3},
            "up to 3 rounds of 16 prompts x 8 rollouts = 128 sequences -> 16 groups -> "
            "2 micro-batches of 64 -> 1 update",
        ),
    ],
)
def test_batch_arithmetic_goes_from_prompts_to_updates(arguments, line):
    assert batch_arithmetic(16, 8, **arguments) == line


def test_questions_are_counted_with_the_reason_of_each_drop():
    lines = question_lines(1900, 200, {"prompt longer than 1024 tokens": 3, "no answer": 0})
    assert lines == [
        "1,900 for training, 200 held out, 3 dropped",
        "  3 dropped: prompt longer than 1024 tokens",
    ]


def test_what_is_kept_from_training_on_purpose_is_left_out_and_all_rows_are_named():
    assert question_lines(400, 100, {"official test": 500}, rows=1000) == [
        "1,000 rows: 400 for training, 100 held out, 500 dropped",
        "  500 left out: official test",
    ]


def test_the_start_names_what_is_about_to_run():
    text = shown(
        start_panel(
            model="org/Llama[bold]",
            parameters=1234567,
            devices="8 x cpu",
            mesh={"fsdp": 4, "tensor": 2},
            batch=batch_arithmetic(16, 8, micro_batch=64),
            questions=question_lines(10, 2, {"duplicate": 1}),
            output="runs/x",
            resumed_from=20,
        )
    )
    for part in (
        "org/Llama[bold], 1,234,567 parameters",
        "8 x cpu",
        "fsdp 4 x tensor 2",
        "= 128 sequences ->",
        "1 dropped: duplicate",
        "runs/x (resumed after step 20)",
    ):
        assert part in text


def test_the_first_prompt_is_printed_exactly_as_it_is():
    prompt = (
        "<|start|>[bold]A man[/bold] [/INST] of 40 " + "years " * 60 + "\n\nA. x\n  B. \\boxed{}"
    )
    file = io.StringIO()
    show_first_prompt(Console(file=file, width=60), prompt, list(range(100, 140)))
    text = file.getvalue()
    assert prompt in text
    assert "40 tokens" in text
    assert "100 101 102 103 104 105 106 107 ..." in text


def test_control_characters_of_a_response_are_shown_and_not_obeyed():
    table = sample_table([sample(response="\x1b[31m\\boxed{B}\x07\u202e", prompt="[/red] \ud800")])
    text = shown(table)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\\x1b[31m\\boxed{B}\\x07\\u202e" in text
    assert "[/red] \\ud800" in text


def test_the_progress_line_is_one_line_with_the_time_left():
    line = progress_line(7, 80, HEALTHY, seconds_per_step=2.0)
    assert line == (
        "step  7/80  accuracy 0.412  base 0.31  effective 0.60  length 14.2  no answer 0.01  "
        "cut 0.01  12.3k tok/s  2m 26s left"
    )
    assert len(line) <= 120


def test_a_step_without_answers_still_has_its_line():
    silent = HEALTHY | dict.fromkeys([key for key in HEALTHY if key.startswith("answers/")])
    assert "base -" in progress_line(7, 80, silent, seconds_per_step=2.0)


def test_the_progress_line_tells_the_rounds_where_there_were_several():
    line = progress_line(7, 80, HEALTHY | {"rollout/rounds": 3}, seconds_per_step=2.0)
    assert "  effective 0.60 in 3 rounds  length" in line
    assert len(line) <= FILE_WIDTH


def test_sampling_that_was_given_up_is_told_in_numbers():
    assert gave_up(5, 48, wanted=16, rounds=3) == (
        "5 of 48 groups are effective after 3 rounds, and the batch holds 16: "
        "the step goes on with these, as rollout.max_rounds is 3"
    )
    assert gave_up(16, 48, wanted=16, rounds=3) is None
    assert gave_up(5, 16, wanted=16, rounds=1) is None


@pytest.mark.parametrize("value", [None, math.nan])
def test_the_progress_line_shows_a_dash_where_nothing_was_measured(value):
    line = progress_line(80, 80, dict.fromkeys(HEALTHY, value), seconds_per_step=2.0)
    assert "length -  " in line
    assert line.endswith("  - tok/s  0s left")


def test_the_letters_of_a_step_stand_beside_its_most_frequent_key():
    metrics = {"answers/A": 0.9375, "answers/B": 0.0625, "answers/C": 0.0, "answers/baseline": 0.31}
    assert letters_line(metrics) == "answers A 0.94  B 0.06; most frequent key 0.31"
    assert letters_line(dict.fromkeys(metrics, math.nan)) is None
    assert letters_line({"answers/A": None, "answers/baseline": 0.31}) is None


def test_a_slow_step_does_not_distort_the_time_left():
    assert typical_seconds([60.0, 1.0, 1.0, 30.0, 1.0]) == 1.0
    assert typical_seconds([9.0] * 50 + [1.0] * 20) == 1.0
    with pytest.raises(ValueError, match="no step"):
        typical_seconds([])


def test_an_evaluation_is_one_line_with_intervals_over_questions():
    result = {
        "step": 80,
        "questions": 200,
        "sampled": {"accuracy": 0.77, "no_answer": 0.01, "length_mean": 15.2},
        "greedy": {"accuracy": None, "correct": 0, "total": 0},
    }
    assert evaluation_line(result) == (
        "evaluation after step 80, 200 questions | "
        "sampled accuracy 0.770 [0.707, 0.823], no answer 0.01, length 15.2 | "
        "greedy accuracy -, no answer -, length -"
    )
    line = evaluation_line(result | {"baseline": 0.32})
    assert line.startswith("evaluation after step 80, 200 questions, baseline 0.320 | sampled")


def test_the_table_shows_what_was_read_out_of_each_response():
    table = sample_table(
        [
            sample(),
            sample(extracted=None, reason="truncated", reward=0.0, advantage=-1.2),
            sample(prompt="start " + "x" * 500 + " end", response="begin " + "y" * 900 + " over"),
        ],
        step=10,
    )
    text = shown(table, width=160)
    assert [column.header for column in table.columns] == [
        "end of prompt",
        "response",
        "extracted",
        "gold",
        "reward",
        "advantage",
    ]
    for part in ("responses of step 10", "- (truncated)", "+0.73", "-1.20", "end", "begin", "over"):
        assert part in text
    assert "start" not in text


def test_names_and_values_are_never_markup():
    text = shown(facts_panel("[red]run", {"name [x]": "[/] value"}))
    for part in ("[red]run", "name [x]", "[/] value"):
        assert part in text


def test_a_warning_is_a_line_whose_brackets_are_text():
    console = Console(file=io.StringIO(), width=200)
    warn(console, "turns end with [/INST], which stops nothing")
    warn(console, "no group is effective", indent="  ")
    assert console.file.getvalue().splitlines() == [
        "warning: turns end with [/INST], which stops nothing",
        "  warning: no group is effective",
    ]


def test_output_that_cannot_encode_a_character_does_not_stop_a_run():
    code = "from alphamed_jax.terminal.display import make_console as c; c().print('≥ 5 µg → B')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == r"\u2265 5 \xb5g \u2192 B"


@pytest.mark.parametrize("width", [40, 60, 79, 80, FILE_WIDTH])
def test_prompt_and_response_are_shown_at_every_width(width):
    text = shown(sample_table([sample()], step=7), width=width)
    words = " ".join(text.split())
    for part in ("responses of step 7", "Which", "drug?", "It is B.", "\\boxed{B}"):
        assert part in words
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("text", ["[/x]", "[red]", ":smile:", "[link=a]b[/link]"])
def test_brackets_in_text_of_others_are_text(text, capsys):
    make_console().print(f"runs/{text}")
    assert capsys.readouterr().out == f"runs/{text}\n"
    table = shown(sample_table([sample(prompt=text, response=text, answer="A")]), width=40)
    panel = shown(facts_panel(text, {"output": text}))
    assert table.count(text) == 2
    assert panel.count(text) == 2
