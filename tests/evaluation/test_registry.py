"""The table of benchmarks says which rows each score is of."""

import pytest
from conftest import REPOSITORY

from alphamed_jax.data.sources import SOURCES
from alphamed_jax.errors import UserError
from alphamed_jax.evaluation.registry import BENCHMARKS, VARIANTS, find, known

HASH = "47849e7e0720ae18baf9d49e35c40a1a4975eb277c5d2ceb917b57b7ad7f72fb"


def test_each_variant_has_its_data_set_its_split_and_its_number_of_rows():
    said = {
        name: (one.hub_id, one.hub_config, one.split, variant.rows)
        for name, (one, variant) in VARIANTS.items()
        if one.hub_id
    }

    assert said == {
        "medqa-usmle-4": ("GBaker/MedQA-USMLE-4-options", None, "test", 1273),
        "medmcqa-validation": ("openlifescienceai/medmcqa", None, "validation", 4183),
        "pubmedqa-500-abstract": ("qiaojin/PubMedQA", "pqa_labeled", "train", 500),
        "pubmedqa-500-question": ("qiaojin/PubMedQA", "pqa_labeled", "train", 500),
        "pubmedqa-1000-abstract": ("qiaojin/PubMedQA", "pqa_labeled", "train", 1000),
        "mmlu-pro-health+biology": ("TIGER-Lab/MMLU-Pro", None, "test", 818 + 717),
        "gpqa-medical-78": ("Idavidrein/gpqa", "gpqa_main", "train", 16 + 62),
        "medxpertqa-text-2450": ("TsinghuaC3I/MedXpertQA", "Text", "test", 2450),
    }


def test_a_benchmark_means_its_first_variant():
    assert {name: find(name)[1].name for name in BENCHMARKS} == {
        "medqa": "medqa-usmle-4",
        "medmcqa": "medmcqa-validation",
        "pubmedqa": "pubmedqa-500-abstract",
        "mmlu-pro-medical": "mmlu-pro-health+biology",
        "gpqa-medical": "gpqa-medical-78",
        "medxpertqa": "medxpertqa-text-2450",
        "quickstart": "quickstart-heldout",
    }


def test_sub_categories_are_told_by_what_the_rows_hold():
    assert {name: one.by for name, one in BENCHMARKS.items() if one.by} == {
        "medqa": ("meta_info",),
        "medmcqa": ("subject_name",),
        "mmlu-pro-medical": ("category",),
        "gpqa-medical": ("Subdomain",),
        "medxpertqa": ("medical_task", "body_system", "question_type"),
    }


def test_the_published_ids_of_pubmedqa_are_asked_for_in_each_variant():
    hashes = {name: variant.ids_sha256 for name, (_, variant) in VARIANTS.items()}

    assert {name for name, value in hashes.items() if value == HASH} == {
        "pubmedqa-500-abstract",
        "pubmedqa-500-question",
        "pubmedqa-1000-abstract",
    }
    assert set(hashes.values()) == {HASH, None}


def test_gpqa_alone_is_gated_and_asks_repeated_questions_once():
    assert [name for name, one in BENCHMARKS.items() if one.gated] == ["gpqa-medical"]
    assert [name for name, (_, one) in VARIANTS.items() if one.once] == ["gpqa-medical-78"]


def test_variants_of_a_benchmark_are_of_one_data_set():
    for benchmark in BENCHMARKS.values():
        assert {(one.source.hub_id, one.source.hub_config) for one in benchmark.variants} == {
            (benchmark.hub_id, benchmark.hub_config)
        }


def test_no_name_means_two_things_and_each_can_name_a_file():
    assert not set(BENCHMARKS) & set(VARIANTS)
    assert all(known(name) for name in [*BENCHMARKS, *VARIANTS])
    assert not known("ward")
    assert not [name for name in VARIANTS if set(name) & set("/@:=, ")]


def test_a_benchmark_that_is_a_source_as_well_is_the_test_of_that_source():
    for name in set(BENCHMARKS) & set(SOURCES):
        if "test" in SOURCES[name].splits:
            assert SOURCES[name].splits["test"] == BENCHMARKS[name].split


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("medqua", "medqa"),
        ("mmlu-pro", "mmlu-pro-medical"),
        ("pubmedqa-500-questions", "pubmedqa-500-question"),
        ("MedXpertQA", "medxpertqa"),
    ],
)
def test_an_unknown_benchmark_names_the_nearest(name: str, nearest: str):
    with pytest.raises(UserError, match=f"unknown benchmark '{name}'. Did you mean '{nearest}'"):
        find(name)


def test_the_page_on_evaluation_has_every_variant_with_its_rows_and_data_set():
    page = (REPOSITORY / "docs" / "evaluation.md").read_text("utf-8")

    for benchmark, variant in VARIANTS.values():
        [line] = [line for line in page.splitlines() if f" | `{variant.name}` | " in line]
        assert f"| {variant.rows:,} |" in line
        if variant is benchmark.variants[0]:
            assert line.startswith(f"| `{benchmark.name}` |")
            assert f"`{benchmark.hub_id}`" in line or benchmark.hub_id is None
