"""Values of files and flags are what they look like, and the same in both."""

import os
from pathlib import Path

import pytest

from alphamed_jax.config import Config, LossConfig, load_config, parse_config, to_yaml
from alphamed_jax.config_io import shown
from alphamed_jax.errors import UserError


def parse(*flags):
    return parse_config(flags, "program", "What it does.")


def written(folder, text, name="run.yaml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "steps: 010",
        "steps: 1:30",
        "steps: 0x10",
        "steps: 0b11",
        "steps: 1_000",
        "seed: -0_1",
        "optimizer: {learning_rate: 1_0.5}",
        "optimizer: {learning_rate: 1:30.5}",
        "model: 010",
        "data: [1:30]",
    ],
)
def test_a_number_that_yaml_reads_as_another_is_refused_with_its_line(tmp_path, text):
    with pytest.raises(UserError, match=r"is no plain number: .*line 1") as refused:
        load_config(written(tmp_path, text))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "Yes", "OFF"])
def test_only_true_and_false_are_booleans(tmp_path, word):
    with pytest.raises(UserError, match=f"expected bool, found '{word}'.* Write true or false"):
        load_config(written(tmp_path, f"export: {word}"))
    assert load_config(written(tmp_path, f"model: {word}")).model == word
    assert load_config(written(tmp_path, "export: False")).export is False


def test_numbers_as_they_are_usually_written_are_read(tmp_path):
    text = "steps: 7\nseed: 0\noptimizer: {learning_rate: 1e-6, eps: 1.0E-08, b1: .5, b2: 0.25}\n"
    read = load_config(written(tmp_path, text))
    assert (read.steps, read.seed) == (7, 0)
    rates = read.optimizer
    assert (rates.learning_rate, rates.eps, rates.b1, rates.b2) == (1e-6, 1e-8, 0.5, 0.25)
    assert load_config(written(tmp_path, "model: 2024-01-01")).model == "2024-01-01"


@pytest.mark.parametrize("word", ["none", "None", "NONE", "null", "Null", "~"])
def test_every_word_for_not_set_is_the_same_in_files_and_flags(tmp_path, word):
    text = f"output: {word}\ncheckpoints: '{word}'\nloss: {{dual_clip: {word}, tis_cap: {word}}}\n"
    text += f"rollout: {{slots: {word}}}\nupdate: {{remat: {word}}}\nnum_processes: {word}\n"
    read = load_config(written(tmp_path, text))
    flags = ["--config", str(written(tmp_path, "loss: {dual_clip: 3, tis_cap: 2}\nmodel: m\n"))]
    flags += ["--output", word, f"--checkpoints={word}", "--loss.dual-clip", word]
    flags += [f"--loss.tis_cap={word}", "--rollout.slots", word, "--update.remat", word]
    given = parse(*flags)
    for config in (read, given):
        assert (config.output, config.checkpoints, config.num_processes) == (None, None, None)
        assert (config.loss.dual_clip, config.loss.tis_cap) == (None, None)
        assert (config.rollout.slots, config.update.remat) == (None, "none")


def test_values_are_shown_as_files_and_flags_have_them(capsys):
    values = (None, True, False, 1, 1e-6, "auto", ("a", "b"))
    words = ["null", "true", "false", "1", "1e-06", "'auto'", "('a', 'b')"]
    assert [shown(value) for value in values] == words
    with pytest.raises(SystemExit):
        parse_config(["--help"], "train", "")
    page = capsys.readouterr().out
    assert "--rollout.slots null|INT" in page
    assert "None" not in page


def test_a_compilation_cache_that_is_none_is_no_folder_of_that_name(tmp_path):
    with pytest.raises(UserError, match="compilation_cache is 'none': expected auto, a folder"):
        parse("--compilation-cache", "none")


def test_the_home_folder_is_found_in_every_path_setting(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    text = "model: ~/m\noutput: ~/o\ncheckpoints: ~/c\ncompilation_cache: ~/x\n"
    written(tmp_path, text)
    flags = ("--model=~/m", "--output=~/o", "--checkpoints=~/c", "--compilation-cache=~/x")
    for config in (parse("--config", "~/run.yaml"), parse(*flags)):
        assert config.model == f"{tmp_path}/m"
        assert config.folder == tmp_path / "o"
        assert config.checkpoint_folder == f"{tmp_path}/c"
        assert config.compilation_cache == f"{tmp_path}/x"
    assert Config(output="./~").folder == Path("~")
    with pytest.raises(UserError, match="output is ~nobody-at-all/x: there is no home"):
        Config(output="~nobody-at-all/x")


def test_a_path_that_is_not_utf_8_is_refused_before_anything_is_written():
    with pytest.raises(UserError, match="is not UTF-8"):
        parse("--output", os.fsdecode(b"caf\xe9"))


def run_of(folder, config):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    (folder / "metrics.jsonl").touch()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A run that was started in tmp_path, with paths relative to it."""
    monkeypatch.chdir(tmp_path)
    run_of(tmp_path / "runs" / "one", Config(model="m", data=("q.jsonl",), output="runs/one"))
    return tmp_path


@pytest.mark.parametrize("place", [".", "runs", "runs/one", ".."])
def test_a_run_s_own_configuration_repeats_it_from_wherever(project, monkeypatch, place):
    # Given a run that was started in a project's folder, when it is repeated from another one
    monkeypatch.chdir(project / place)
    config = parse("--config", os.path.relpath(project / "runs/one/config.yaml"))
    # then it has its name and folder, and relative paths are those of the project.
    assert config.name == "one"
    assert config.folder.absolute() == project / "runs" / "one"
    assert Path(config.data[0]).absolute() == project / "q.jsonl"


def test_the_configuration_of_a_run_that_was_moved_belongs_to_its_new_folder(project):
    (project / "runs" / "one").rename(project / "runs" / "two")
    config = parse("--config", "runs/two/config.yaml")
    assert (config.name, config.folder.absolute()) == ("two", project / "runs" / "two")


def test_a_configuration_beside_no_run_keeps_its_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, "model: m\noutput: elsewhere\n", "config.yaml")
    assert parse("--config", str(path)).folder == Path("elsewhere")


def test_a_bound_that_the_loss_variant_does_not_have_is_refused():
    with pytest.raises(UserError, match=r"loss\.dual_clip bounds the loss of loss\.variant clip"):
        LossConfig(variant="cispo", dual_clip=3.0)
