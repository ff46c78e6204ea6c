"""Write the pages that are made from the code: `python docs/generate.py`.

`settings.md` is made of the docstrings of the configuration, `metrics.md` of the table of metrics,
`programs.md` of the records of programs. A test compares the pages with what the code makes now.
"""

import ast
import dataclasses
import inspect
import json
import math
import textwrap
import typing
from pathlib import Path

import jax
from jax.sharding import AbstractMesh, AxisType

from alphamed_jax.compiled import topology
from alphamed_jax.compiled.topology import GIB
from alphamed_jax.config import Config, load_config
from alphamed_jax.config_marks import Mark
from alphamed_jax.model.mesh import AXES, parse_mesh
from alphamed_jax.output.metrics import (
    EVAL_KEYS,
    METRIC_KEYS,
    SAMPLE_KEYS,
    SOURCE_KEYS,
    Sample,
)
from alphamed_jax.planning.devices import Devices
from alphamed_jax.planning.shape import model_shape
from alphamed_jax.planning.step import planned_step
from alphamed_jax.programs import PROGRAMS
from alphamed_jax.programs.record import memory_parts

HERE = Path(__file__).parent


def docstrings(kind: type) -> dict[str, str]:
    """The string below each field of a dataclass, on one line."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            found[ast.unparse(field.target)] = " ".join(ast.literal_eval(below.value).split())
    return found


def shown_type(kind: typing.Any) -> str:
    """A type as a reader of YAML sees it."""
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        return "list"
    parts = typing.get_args(kind) or (kind,)
    return " or ".join("null" if part is type(None) else part.__name__ for part in parts)


def cell(text: str) -> str:
    """Text that a table of Markdown keeps as it is."""
    return text.replace("|", "\\|").replace("\n", " ")


def section(kind: type, prefix: str) -> list[str]:
    """The table of one section; `prefix` stands before its flags."""
    hints, texts = typing.get_type_hints(kind, include_extras=True), docstrings(kind)
    lines = ["| setting | values | default | may differ | meaning |", "|---|---|---|---|---|"]
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING:
            continue  # a section of its own
        marks = [m.value for m in typing.get_args(hints[field.name]) if isinstance(m, Mark)]
        default = json.dumps(field.default, ensure_ascii=False)
        lines.append(
            f"| `{prefix}{field.name}` | {cell(shown_type(hints[field.name]))} | "
            f"`{cell(default)}` | {', '.join(marks)} | "
            f"{cell(texts[field.name])} |"
        )
    return lines


def settings() -> str:
    """The page of all settings."""
    lines = [
        "# Settings",
        "",
        "<!-- Made by `python docs/generate.py` from alphamed_jax/config.py and "
        "config_sections.py. -->",
        "",
        "Each is a key of the YAML file (`rollout: {prompts: 64}`) and a flag that overrides it "
        "(`--rollout.prompts 64`). The paper gives the algorithm and the data and none of these "
        "numbers: they are our choices.",
        "",
        "A setting that may not differ on resume is part of what the run is: its folder is bound "
        "to it. One that may not differ in another process is compared before the run begins.",
        "",
        "## Top level",
        "",
        *section(Config, ""),
    ]
    hints = typing.get_type_hints(Config)
    for field in dataclasses.fields(Config):
        if field.default is dataclasses.MISSING:
            kind = hints[field.name]
            lines += ["", f"## {field.name}", "", " ".join(kind.__doc__.split())]
            lines += ["", *section(kind, f"{field.name}.")]
    return "\n".join(lines) + "\n"


def metrics() -> str:
    """The page of all metrics."""
    texts = {"step": "Number of the training step."} | docstrings(Sample)
    rows = [f"| `{key}` | {cell(text)} |" for key, text in METRIC_KEYS.items()]
    evaluated = [f"| `{key}` | {cell(text)} |" for key, text in EVAL_KEYS.items()]
    samples = [f"| `{key}` | {cell(texts[key])} |" for key in SAMPLE_KEYS]
    return "\n".join(
        [
            "# Metrics",
            "",
            "<!-- Made by `python docs/generate.py` from alphamed_jax/output/metrics.py. -->",
            "",
            "`metrics.jsonl` has one object a step with these keys; TensorBoard has the same "
            "scalars.",
            "",
            "| key | meaning |",
            "|---|---|",
            *rows,
            "",
            "Where a run has several sources, there are for each of them:",
            "",
            "| key | meaning |",
            "|---|---|",
            *(f"| `{key}` | {cell(text)} |" for key, text in SOURCE_KEYS.items()),
            "",
            "Where a step has several updates, what is said of trained tokens is the mean of the "
            "updates' means, each under the policy of that update; updates without a trained "
            "token do not count.",
            "",
            "Rows of evaluated steps (`eval.every`, and the last) have these as well; the rest of "
            "an evaluation stands in `eval/step_NNNNNN.json`, and its numbers in TensorBoard:",
            "",
            "| key | meaning |",
            "|---|---|",
            *evaluated,
            "",
            "`samples.jsonl` has some responses of each step (`log.samples`):",
            "",
            "| key | meaning |",
            "|---|---|",
            *samples,
            "",
        ]
    )


def arrays(tree: typing.Any) -> str:
    """The distinct arrays of a program's arguments, largest first, as `bfloat16[128256 4096]`."""
    leaves = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.ShapeDtypeStruct)]
    leaves = sorted(leaves, key=lambda x: (-math.prod(x.shape), str(x.shape)))
    shown = dict.fromkeys(f"{x.dtype}[{' '.join(map(str, x.shape))}]" for x in leaves if x.shape)
    more = f" and {len(shown) - 3} more shapes" if len(shown) > 3 else ""
    return ", ".join(list(shown)[:3]) + more


def programs() -> str:
    """The page of all jitted programs."""
    config = load_config(HERE.parent / "configs" / "alphamed_8b.yaml")
    chip, sizes = topology.chip("v5e:8x8"), parse_mesh(config.mesh)
    mesh = AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3)
    step = planned_step(config, model_shape(config.model), Devices("v5e:8x8", mesh, chip, "tpu"))
    lines = []
    for program in PROGRAMS:
        function = inspect.unwrap(program.function)
        place = function.__module__.removeprefix("alphamed_jax.").replace(".", "/")
        purpose = " ".join((function.__doc__ or "").split("\n\n")[0].split())
        held = sum(memory_parts(program, step).values()) / GIB
        given = program.arguments(step)
        cells = f"`{program.name}`", program.stage, f"`{place}.py`", purpose
        run = "yes" if program.used(step) else "no"
        shapes = arrays((given.arguments, given.options))
        lines.append(f"| {' | '.join(map(cell, cells))} | {run} | {shapes} | {held:.2f} |")
    return "\n".join(
        [
            "# Programs",
            "",
            "<!-- Made by `python docs/generate.py` from alphamed_jax/programs/. -->",
            "",
            "The jitted functions of a training step, in order. Those of *rollout* are called by "
            "`rl/sampler_run.py` (decode weights by `rl/sampler.py`, `reshard` by `rl/step.py`), "
            "*reward* by `rl/step.py`, *update* by `rl/mini_batches.py`. Shapes are the largest "
            "arguments in a step of "
            "`configs/alphamed_8b.yaml` on v5e:8x8, over all chips; GiB is what lies on one chip "
            "while the program runs, before anything that it makes itself. What each costs as "
            "compiled is in [plans.md](plans.md).",
            "",
            "| program | stage | file | what it does | 8B runs it | largest arguments | GiB |",
            "|---|---|---|---|---|---|---|",
            *lines,
            "",
        ]
    )


PAGES = {"settings.md": settings, "metrics.md": metrics, "programs.md": programs}

if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    for name, make in PAGES.items():
        (HERE / name).write_text(make(), "utf-8")
