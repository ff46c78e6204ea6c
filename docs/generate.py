"""Write the pages that are made from the code: `python docs/generate.py`.

`settings.md` is made of the docstrings of the configuration, `metrics.md` of the table of metrics.
A test compares both with what stands here, so that they cannot fall behind.
"""

import ast
import dataclasses
import inspect
import json
import textwrap
import typing
from pathlib import Path

from alphamed_jax.config import Config
from alphamed_jax.config_marks import Mark
from alphamed_jax.output.metrics import METRIC_KEYS, SAMPLE_KEYS, Sample

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
        "<!-- Made by `python docs/generate.py` from alphamed_jax/config_sections.py. -->",
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
    texts = docstrings(Sample)
    rows = [f"| `{key}` | {cell(text)} |" for key, text in METRIC_KEYS.items()]
    samples = [f"| `{key}` | {cell(texts.get(key, ''))} |" for key in SAMPLE_KEYS]
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
            "Where a step has several updates, what is said of trained tokens is the mean of the "
            "updates' means, each under the policy of that update; updates without a trained "
            "token do not count.",
            "",
            "`samples.jsonl` has some responses of each step (`log.samples`):",
            "",
            "| key | meaning |",
            "|---|---|",
            *samples,
            "",
        ]
    )


PAGES = {"settings.md": settings, "metrics.md": metrics}

if __name__ == "__main__":
    for name, make in PAGES.items():
        (HERE / name).write_text(make(), "utf-8")
