"""The data sets we know: where their rows lie, how one is read, which split may be trained on.

A source is one function from a row to a `Question` and one line in `SOURCES`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from alphamed_jax import embedded
from alphamed_jax.data.alphamed19k import alphamed19k
from alphamed_jax.data.gpqa import gpqa_medical
from alphamed_jax.data.medxpertqa import medxpertqa
from alphamed_jax.data.mmlu_pro import mmlu_pro_medical
from alphamed_jax.data.pubmedqa import (
    TEST_SIZE,
    in_official_test,
    pubmedqa,
    pubmedqa_artificial,
    pubmedqa_artificial_no_context,
    pubmedqa_no_context,
)
from alphamed_jax.data.questions import Question, own_question
from alphamed_jax.data.rows import Row
from alphamed_jax.data.schemas import medmcqa, medqa
from alphamed_jax.data.verl import verl
from alphamed_jax.errors import UserError


@dataclass(frozen=True)
class Source:
    """One data set."""

    name: str
    convert: Callable[[Row, str], Question]
    """(row, source name) -> Question to learn from, a `Reader` where the rows are of the hub.
    Raises UserError for a malformed row, without its place."""
    splits: dict[str, str | Path]
    """Our split -> split on the hub, or file in this package. `train` is trained on, `heldout`
    (where there is one) measures a run while it trains, `test` is the published benchmark."""
    hub_id: str | None = None
    hub_config: str | None = None
    index: str | None = None
    """Key of an answer that is an index, from 0."""
    official: Callable[[Row], bool] | None = None
    """Whether a row is one of a published test's, where a split or a file may hold such rows."""
    official_size: int = 0
    """How many of them the split on the hub holds."""


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("quickstart", own_question, {"train": embedded.TRAIN, "heldout": embedded.HELDOUT}),
        # Test answers are hidden, so everyone reports on `validation`: it is our test split, and
        # not for looking at while training.
        Source(
            "medmcqa",
            medmcqa,
            {"train": "train", "test": "validation"},
            "openlifescienceai/medmcqa",
            index="cop",
        ),
        Source("medqa", medqa, {"train": "train", "test": "test"}, "GBaker/MedQA-USMLE-4-options"),
        # 1,000 labelled rows in one split, of which 500 are the published test.
        *(
            Source(
                name,
                convert,
                {"train": "train"},
                "qiaojin/PubMedQA",
                "pqa_labeled",
                official=in_official_test,
                official_size=TEST_SIZE,
            )
            for name, convert in (
                ("pubmedqa", pubmedqa),
                ("pubmedqa-no-context", pubmedqa_no_context),
            )
        ),
        # Labelled by rule, from other articles than the labelled rows.
        *(
            Source(
                name,
                convert,
                {"train": "train"},
                "qiaojin/PubMedQA",
                "pqa_artificial",
                official=in_official_test,
            )
            for name, convert in (
                ("pubmedqa-artificial", pubmedqa_artificial),
                ("pubmedqa-artificial-no-context", pubmedqa_artificial_no_context),
            )
        ),
        Source("alphamed19k", alphamed19k, {"train": "train"}, "che111/AlphaMed19K"),
        # Whatever has this schema; there is no data set of this name.
        Source("verl", verl, {}),
        # Tests alone: nothing of them is trained on.
        Source("mmlu-pro-medical", mmlu_pro_medical, {"test": "test"}, "TIGER-Lab/MMLU-Pro"),
        Source("gpqa-medical", gpqa_medical, {"test": "train"}, "Idavidrein/gpqa", "gpqa_main"),
        Source("medxpertqa", medxpertqa, {"test": "test"}, "TsinghuaC3I/MedXpertQA", "Text"),
    )
}


def check_sources(sources: Mapping[str, Source]) -> None:
    """Refuse a table in which what one source learns from is a published test of any.

    Raises:
      UserError: names the split.
    """
    tests = {
        (source.hub_id, source.hub_config, source.splits["test"]): source.name
        for source in sources.values()
        if "test" in source.splits
    }
    for source in sources.values():
        for name in ("train", "heldout"):
            split = source.splits.get(name)
            test = tests.get((source.hub_id, source.hub_config, split or ""))
            if split and test:
                raise UserError(
                    f"source {source.name!r} has the split {str(split)!r} for {name}, but it is "
                    f"the published test of {test!r}, which is not trained on"
                )
