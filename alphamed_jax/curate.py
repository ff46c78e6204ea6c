"""`python -m alphamed_jax.curate`: which questions to train on.

    alphamed curate check --data FILE [FILE ...] --against medqa medmcqa --output DIR
    alphamed curate score --model MODEL --data medqa medmcqa --samples 5 --output DIR
    alphamed curate pick --scores DIR --recipe balanced --output train.jsonl

`check` finds duplicates, overlap with the benchmarks, and defects; `score` tells how difficult each
question is for a model; `pick` makes a training set of scored questions. docs/data.md has all of it
in words.
"""

import importlib
import sys

from alphamed_jax import cli
from alphamed_jax.config_io import flags_of
from alphamed_jax.errors import UserError, nearest

PARTS = {
    "check": "duplicates, overlap with the benchmarks, and defects; removed on request",
    "score": "how often a base model answers each question right",
    "pick": "a training set by source, difficulty and length, with its manifest",
}
"""First word behind `curate`, which is a module of `curation` and its function: what it does."""
USAGE = """usage: alphamed curate PART [FLAGS]

{parts}

alphamed curate PART --help explains each."""


def main() -> None:
    """`alphamed curate PART ...`: hand over to the part's module; it alone is imported."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in PARTS:
        module = importlib.import_module(f"alphamed_jax.curation.{name}")
        sys.argv = [f"{sys.argv[0]} {name}", *rest]
        # A module may read its command line itself.
        read = getattr(module, "read", None) or flags_of(module.Arguments)
        cli.run(f"curate {name}", getattr(module, name), read, module.__doc__)
    else:
        cli.run("curate", _about, lambda *_: name, None)


def _about(name: str) -> None:
    """Answer what is no part."""
    if name not in ("-h", "--help", "help"):
        raise UserError(
            f"unknown argument {name!r}.{nearest(name, PARTS)} After curate comes "
            f"{' or '.join(PARTS)}."
        )
    width = max(map(len, PARTS))
    print(
        USAGE.format(parts="\n".join(f"  {part:{width}}  {what}" for part, what in PARTS.items()))
    )


if __name__ == "__main__":
    main()
