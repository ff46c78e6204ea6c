"""Our reading of made-up responses, by hand; and every difference from lm-evaluation-harness."""

import importlib
import json
import runpy

import pytest
from conftest import REPOSITORY
from evaluation.made_up import question, scored

from alphamed_jax.data.questions import Question
from alphamed_jax.evaluation.rules import extract
from alphamed_jax.evaluation.samples import to_row

MADE_UP = runpy.run_path(str(REPOSITORY / "tools" / "made_up_responses.py"))["MADE_UP"]


@pytest.mark.parametrize("part", MADE_UP)
def test_the_answer_rule_reads_each_made_up_response_as_its_prose_says(part):
    for options, response, expected in MADE_UP[part]:
        asked = Question("q", "Which?", options, "A", "made-up")
        letter, reason = extract("boxed", response, asked)
        assert (letter or reason) == expected, response


@pytest.fixture
def agreement(monkeypatch):
    """The script, where lm-evaluation-harness is there to compare with."""
    pytest.importorskip("lm_eval", reason="compares with lm_eval: pip install lm_eval==0.4.13")
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
    return importlib.import_module("agreement_with_lm_eval")


@pytest.mark.slow
def test_every_difference_from_lm_evaluation_harness_is_explained_and_documented(agreement):
    lines, unexplained = agreement.tables(agreement.responses([]))
    assert unexplained == 0, "\n".join(lines)
    documented = (REPOSITORY / "docs" / "evaluation.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line not in documented] == []


@pytest.mark.slow
def test_a_line_of_samples_has_the_hashes_that_lm_evaluation_harness_makes(agreement):
    from lm_eval.utils import handle_non_serializable, hash_string

    (sample,) = scored([question("q1", "B", subject="Ärzte")], [["B"]]).samples
    row = to_row(sample)
    doc = json.dumps(row["doc"], indent=2, default=handle_non_serializable, ensure_ascii=False)
    assert row["doc_hash"] == hash_string(doc)
    assert row["prompt_hash"] == hash_string(row["arguments"]["gen_args_0"]["arg_0"])
    assert row["target_hash"] == hash_string(str(row["target"]))
