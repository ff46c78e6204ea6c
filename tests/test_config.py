"""The configuration: what a file and flags may say, how they combine, and what is refused."""

import dataclasses
import re
import typing
from typing import Literal

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alphamed_jax import config as config_module
from alphamed_jax.config import Config, load_config, parse_config, to_yaml
from alphamed_jax.config_io import flag_names, is_unset
from alphamed_jax.errors import UserError

SECTIONS = {
    name: kind
    for name, kind in typing.get_type_hints(Config).items()
    if dataclasses.is_dataclass(kind)
}


def parse(*flags):
    return parse_config(flags, "program", "What it does.")


def write(folder, text, name="run.yaml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(call, *args):
    """The message of the error, which must be a single line."""
    with pytest.raises(UserError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(autouse=True)
def small_quickstart(tmp_path_factory, monkeypatch):
    """A stand-in for the embedded configuration, so that its tuning does not matter here."""
    folder = tmp_path_factory.mktemp("embedded")
    path = write(folder, "steps: 7\nrollout:\n  prompts: 16\n", "config.yaml")
    monkeypatch.setattr(config_module.embedded, "CONFIG", path)


# -- the file ------------------------------------------------------------------------------------

# Any text but halves of UTF-16 pairs, which no file can hold.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def values_of(kind):
    """Values of one annotation, from a range that every section accepts."""
    options = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return st.sampled_from(options)
    if kind == (float | None):
        return st.none() | st.floats(1, 1e30, exclude_min=True)
    if type(None) in options:
        return st.none() | values_of(options[0])
    if typing.get_origin(kind) is tuple:
        return st.lists(TEXTS, min_size=1, max_size=3).map(tuple)
    plain = {
        int: st.integers(2, 2**31),
        float: st.floats(1e-30, 1, exclude_max=True),
        bool: st.booleans(),
        # ~ is somebody's home, and there are words for "not set"
        str: TEXTS.filter(lambda t: t and not t.startswith("~") and not is_unset(t)),
    }
    return plain[kind]


def changes_of(kind=Config):
    """Values for any of the fields of a dataclass, sections within it included."""
    fields = {
        name: changes_of(hint) if dataclasses.is_dataclass(hint) else values_of(hint)
        for name, hint in typing.get_type_hints(kind).items()
        # `config` is not written; not every number of mini-batches divides the prompts.
        if name not in ("config", "mini_batches")
    }
    return st.fixed_dictionaries({}, optional=fields)


@settings(max_examples=40)
@given(changes=changes_of())
def test_a_written_configuration_reads_back_as_the_same_run(tmp_path_factory, changes):
    loss = changes.get("loss", {})
    assume(loss.get("variant") != "cispo" or loss.get("dual_clip") is None)  # refused together
    reward, most = changes.get("reward", {}), changes.get("rollout", {}).get("max_new_tokens", 1024)
    if (reward.get("overlong_cache") or 0) > most:  # refused together
        del reward["overlong_cache"]
    pools = changes.get("curriculum", {})
    if pools.get("hard_below", 0.15) > pools.get("easy_above", 0.85):  # refused together
        del changes["curriculum"]
    drawn = changes.get("rollout", {})
    rounded = "int8" in (drawn.get("weights_dtype"), drawn.get("cache_dtype"))
    if rounded and loss.get("tis_cap") is None:  # required together
        changes["loss"] = loss | {"tis_cap": 2.0}
    patient = changes.get("eval", {})
    assume(not patient.get("patience") or patient.get("every"))
    sections = {name: kind(**changes.get(name, {})) for name, kind in SECTIONS.items()}
    config = Config(**(changes | sections))
    path = tmp_path_factory.getbasetemp() / "round_trip.yaml"
    path.write_bytes(to_yaml(config).encode())
    read = load_config(path)
    assert read.folder == config.folder
    assert dataclasses.replace(read, config=None) == dataclasses.replace(
        config, output=str(config.folder)
    )


def test_keys_that_are_not_given_keep_their_defaults(tmp_path):
    read = load_config(write(tmp_path, "rollout:\n  group_size: 4\n"))
    expected = dataclasses.replace(
        Config(), rollout=dataclasses.replace(Config().rollout, group_size=4)
    )
    assert dataclasses.replace(read, config=None) == expected


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}\n"])
def test_an_empty_file_is_the_defaults(tmp_path, text):
    assert dataclasses.replace(load_config(write(tmp_path, text)), config=None) == Config()


def test_exponents_that_yaml_reads_as_text_are_numbers(tmp_path):
    read = load_config(write(tmp_path, "optimizer: {learning_rate: 5e-4, max_grad_norm: 1}\n"))
    assert read.optimizer.learning_rate == 5e-4
    assert isinstance(read.optimizer.max_grad_norm, float)


def test_one_source_needs_no_list(tmp_path):
    assert load_config(write(tmp_path, "data: medqa\n")).data == ("medqa",)


def test_the_compilation_cache_can_be_off_although_yaml_reads_that_as_false(tmp_path):
    for text in ("off", "'off'", "false"):
        read = load_config(write(tmp_path, f"compilation_cache: {text}\n"))
        assert read.compilation_cache == "off"
    assert load_config(write(tmp_path, to_yaml(read))).compilation_cache == "off"
    assert parse("--compilation-cache", "off").compilation_cache == "off"


def test_anchors_and_merges_are_read(tmp_path):
    text = "update: &u {epochs: 2}\nlog: {samples: 1}\n"
    assert load_config(write(tmp_path, text)).update.epochs == 2
    merged = "eval:\n  <<: {questions: 5}\n  samples: 2\n"
    assert load_config(write(tmp_path, merged)).eval.questions == 5


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("stepz: 3", "unknown key 'stepz'. Did you mean 'steps'?"),
        ("rollout: {promts: 3}", "rollout: unknown key 'promts'. Did you mean 'prompts'?"),
        ("group_size: 4", "unknown key 'group_size'. It belongs into the section 'rollout'."),
        ("1: 2", "unknown key 1."),
        ("config: other.yaml", "unknown key 'config'."),
        ("steps: ten", "steps: expected int, found 'ten'."),
        ("steps: 3.0", "steps: expected int, found 3.0."),
        ("steps: true", "steps: expected int, found True."),
        ("steps:", "steps: expected int, found None."),
        ("export: 'yes'", "export: expected bool, found 'yes'."),
        ("mesh: 8", "mesh: expected str, found 8."),
        ("data: {medmcqa: a.jsonl}", "data: expected a list of strings, found"),
        ("data: [1]", "data: expected a list of strings, found [1]."),
        ("rollout: 3", "rollout: expected a section of keys, found 3."),
        ("rollout:", "rollout: expected a section of keys, found None."),
        ("- steps", "expected a section of keys, found ['steps']."),
        ("rollout: {temperature: warm}", "rollout.temperature: expected float, found 'warm'."),
        ("rollout: {temperature: true}", "rollout.temperature: expected float, found True."),
        ("loss: {ratio: word}", "loss.ratio: expected 'token' | 'sequence', found 'word'."),
        ("rollout: {cache_dtype: int4}", "rollout.cache_dtype: expected 'compute' | 'int8'"),
        ("loss: {dual_clip: big}", "loss.dual_clip: expected float or null, found 'big'."),
        ("loss: {constant_length: 1.5}", "constant_length: expected int or null, found 1.5."),
        (f"loss: {{kl_coef: 1{'0' * 400}}}", "loss.kl_coef: expected float, found"),
        ("steps: 3\nsteps: 4", "key 'steps' is given twice"),
        ("log: {samples: 1}\nseed: 1\nlog: {table_every: 2}", "key 'log' is given twice"),
        ("steps: [3", "not YAML"),
        ("steps: !!python/object:os.system {}", "not YAML"),
    ],
)
def test_a_file_that_is_not_understood_is_refused_by_file_and_key(tmp_path, text, complaint):
    path = write(tmp_path, text)
    message = refusal(load_config, path)
    assert message.startswith(f"{path}: ")
    assert complaint in message


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"steps: \xff\xfe")
    assert refusal(load_config, path).startswith(f"{path}: not YAML")


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "none.yaml"
    assert refusal(load_config, path) == f"--config {path}: no such file."
    assert "no such file" in refusal(load_config, tmp_path)


# -- the values ----------------------------------------------------------------------------------

BAD_VALUES = [
    ("steps", 0),
    ("checkpoint_every", 0),
    ("seed", -1),
    ("seed", 2**32),
    ("model", ""),
    ("data", []),
    ("compilation_cache", ""),
    ("prompt.max_tokens", 0),
    ("lora.rank", -1),
    ("lora.alpha", 0.0),
    ("lora.learning_rate_factor", -1.0),
    ("rollout.prompts", 0),
    ("rollout.group_size", 1),
    ("rollout.max_new_tokens", 0),
    ("rollout.max_rounds", 0),
    ("rollout.temperature", 0.0),
    ("rollout.temperature", float("nan")),
    ("rollout.temperature", float("inf")),
    ("rollout.top_p", 0.0),
    ("rollout.top_p", 1.5),
    ("rollout.top_p", float("nan")),
    ("rollout.top_k", -1),
    ("rollout.weights_dtype", "int8"),
    ("rollout.cache_dtype", "int8"),
    ("reward.overlong_cache", 0),
    ("reward.overlong_cache", 2000),
    ("reward.length_penalty", 1.0),
    ("reward.length_penalty", float("nan")),
    ("loss.clip_low", -0.1),
    ("loss.clip_high", float("nan")),
    ("loss.dual_clip", 1.0),
    ("loss.dual_clip", float("inf")),
    ("loss.tis_cap", 0.9),
    ("loss.tis_cap", float("nan")),
    ("loss.constant_length", 0),
    ("loss.kl_coef", -1.0),
    ("optimizer.learning_rate", -1e-6),
    ("optimizer.learning_rate", float("inf")),
    ("optimizer.warmup_updates", -1),
    ("optimizer.b1", 1.0),
    ("optimizer.b2", float("nan")),
    ("optimizer.eps", 0.0),
    ("optimizer.weight_decay", -0.1),
    ("optimizer.max_grad_norm", 0.0),
    ("update.mini_batches", 0),
    ("update.mini_batches", 5),
    ("update.epochs", 0),
    ("update.micro_batch", 0),
    ("update.logits_chunk", 0),
    ("curriculum.hard", -1.0),
    ("curriculum.hard_below", 0.9),
    ("curriculum.easy_above", 1.5),
    ("curriculum.newest", 0.0),
    ("eval.questions", -1),
    ("eval.samples", 0),
    ("eval.every", -1),
    ("log.samples", -1),
    ("log.table_every", -1),
]


def test_every_section_has_a_bad_value_here():
    assert {key.split(".")[0] for key, _ in BAD_VALUES if "." in key} == set(SECTIONS)


@pytest.mark.parametrize(("key", "value"), BAD_VALUES)
def test_a_value_out_of_range_is_refused_by_file_and_by_flag(tmp_path, key, value):
    section, _, name = key.rpartition(".")
    path = write(tmp_path, yaml.safe_dump({section: {name: value}} if section else {name: value}))
    message = refusal(load_config, path)
    assert message.startswith(f"{path}: {key}")
    if not isinstance(value, list):
        assert refusal(parse, f"--{key.replace('_', '-')}={value}").startswith(key)


@pytest.mark.parametrize("name", ["weights_dtype", "cache_dtype"])
def test_8_bits_need_the_weights_of_tokens_that_they_change(name):
    flag = f"--rollout.{name.replace('_', '-')}"
    message = refusal(parse, flag, "int8")
    assert f"rollout.{name} is int8" in message
    assert "--loss.tis-cap 2" in message
    assert parse(flag, "int8", "--loss.tis-cap", "2").rollout.rounded


# -- the command line ----------------------------------------------------------------------------


def test_without_a_model_or_a_file_it_is_the_quickstart():
    for flags in ((), ("--model", "quickstart"), ("--model=quickstart",)):
        config = parse(*flags)
        assert (config.steps, config.rollout.prompts) == (7, 16)
        assert (config.name, str(config.folder)) == ("quickstart", "runs/quickstart")


def test_another_model_starts_from_the_defaults_and_names_the_run(tmp_path):
    config = parse("--model", "meta-llama/Llama-3.2-1B-Instruct")
    assert config == dataclasses.replace(Config(), model="meta-llama/Llama-3.2-1B-Instruct")
    assert str(config.folder) == "runs/Llama-3.2-1B-Instruct"


def test_flags_override_the_file_whatever_their_order(tmp_path):
    path = str(write(tmp_path, "steps: 50\nrollout: {group_size: 4, top_p: 0.9}\n"))
    flags = ["--steps", "9", "--rollout.top-p", "0.5"]
    first, last = parse("--config", path, *flags), parse(*flags, f"--config={path}")
    assert first == last
    assert (first.steps, first.rollout.top_p, first.rollout.group_size) == (9, 0.5, 4)


def test_the_file_wins_over_the_quickstart_and_names_the_run(tmp_path):
    config = parse("--config", str(write(tmp_path, "seed: 3\n", "mine.yaml")))
    assert (config.steps, config.seed, config.name) == (Config().steps, 3, "mine")


def test_the_written_configuration_of_a_run_repeats_it_in_its_folder(tmp_path):
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    config = parse("--steps", "3", "--output", str(folder))
    again = parse("--config", str(write(folder, to_yaml(config), "config.yaml")))
    assert dataclasses.replace(again, config=None) == config
    assert (again.folder, again.name) == (folder, "mine")


@pytest.mark.parametrize("model", [".", "..", "./"])
def test_a_model_folder_without_a_name_of_its_own_still_names_the_run(model, tmp_path, monkeypatch):
    (tmp_path / "base" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "base" / ("sub" if model == ".." else ""))
    assert parse("--model", model).name == "base"


def test_several_sources_stand_after_one_flag():
    assert parse("--data", "medqa", "medmcqa=a.jsonl").data == ("medqa", "medmcqa=a.jsonl")


def test_optional_values_and_switches():
    config = parse("--no-export", "--loss.dual-clip", "3.0", "--loss.constant-length", "64")
    assert (config.export, config.loss.dual_clip, config.loss.constant_length) == (False, 3.0, 64)
    assert parse("--loss.dual-clip", "None").loss.dual_clip is None


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--stepz", "3"], "unknown argument '--stepz'. Did you mean '--steps'?"),
        (["--stepz=3"], "unknown argument '--stepz=3'. Did you mean '--steps'?"),
        (["--rolout.prompts", "3"], "Did you mean '--rollout.prompts'?"),
        (["stray"], "unknown argument 'stray'."),
        (["--data", "a", "--data", "b"], "--data is given twice: name all sources after one"),
        (["--data=a", "--data", "b"], "--data is given twice"),
        (["--data"], "data is empty"),
        (["--config"], "--config: expected one argument."),
        (["--config", "none.yaml"], "--config none.yaml: no such file."),
        (["--steps", "ten"], "--steps"),
        (["--steps"], "--steps"),
        (["--loss.ratio", "word"], "'word' for argument '--loss.ratio'"),
        (["--rollout.temperature", "warm"], "--rollout.temperature"),
    ],
)
def test_flags_that_are_not_understood_are_refused_in_one_line(flags, complaint, capfd):
    assert complaint in refusal(parse, *flags)
    assert capfd.readouterr() == ("", "")


def test_help_names_every_flag_and_explains_each_of_the_top_level(capsys):
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for flag in flag_names(Config):
        assert re.search(rf"{re.escape(flag)}\b", text), flag
    assert "What it does." in text
    for name in ("steps", "seed", "model", "data", "output", "mesh", "checkpoint-every"):
        described = text.split(f"--{name} ", 1)[1].split("\n", 1)[1].lstrip(" │")
        assert not described.startswith("(default"), f"--{name} is not explained"


def test_the_flags_of_the_contract_are_at_the_top_level():
    contract = "config mesh model data output steps seed checkpoint-every coordinator"
    flags = flag_names(Config)
    for name in [*contract.split(), "num-processes", "process-id", "export"]:
        assert f"--{name}" in flags
