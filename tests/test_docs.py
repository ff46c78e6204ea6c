"""Pages that are made from the code say what the code says."""

import importlib.util
import re

import pytest
from conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
_spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)


@pytest.mark.parametrize("name", generate.PAGES)
def test_a_generated_page_is_what_the_code_makes_now(name):
    written = (DOCS / name).read_text("utf-8")
    assert written == generate.PAGES[name](), "run `python docs/generate.py`"


@pytest.mark.parametrize(
    "page", [*DOCS.glob("*.md"), REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]
)
def test_links_of_a_page_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "page", [*DOCS.glob("*.md"), REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]
)
def test_files_that_a_page_names_exist(page):
    roots = (REPOSITORY, REPOSITORY / "alphamed_jax")
    for name in re.findall(r"`((?:\w+/)+[a-z]\w*\.(?:py|md|yaml|sh))`", page.read_text("utf-8")):
        assert any((root / name).exists() for root in roots), name


def test_functions_that_the_algorithm_page_names_are_there():
    text = (DOCS / "algorithm.md").read_text("utf-8")
    named = re.findall(r"`(\w+)`(?: and `(\w+)`)? in `(rl/\w+\.py)`", text)
    assert len(named) >= 5
    for *names, path in named:
        source = (REPOSITORY / "alphamed_jax" / path).read_text("utf-8")
        for name in filter(None, names):
            assert re.search(rf"^(def|class) {name}\b", source, re.MULTILINE), (path, name)
