"""The prompt of each source is asserted character by character."""

import pytest

from alphamed_jax.config import PromptConfig
from alphamed_jax.data.prompts import prompt_text
from alphamed_jax.data.sources import SOURCES

ROWS = {
    "quickstart": {
        "question": "Fever, neck stiffness, photophobia. First-line treatment?",
        "options": ["Ceftriaxone", "Insulin", "Levothyroxine", "Heparin"],
        "answer": 0,
    },
    "medmcqa": {
        "id": "m-1",
        "question": "Which vitamin is given for scurvy? ",
        **dict(zip(("opa", "opb", "opc", "opd"), ("A1", "B12", "C", "D3"), strict=True)),
        "cop": 2,
    },
    "medqa": {
        "question": "A sailor has bleeding gums. What is missing?",
        "options": {"A": "Thiamine", "B": "Ascorbic acid", "C": "Niacin", "D": "Retinol"},
        "answer": "Ascorbic acid",
        "answer_idx": "B",
    },
    "pubmedqa": {
        "pubid": 1,
        "question": "Does walking help?",
        "context": {"contexts": ["Forty adults walked.", "Pressure fell."]},
        "final_decision": "yes",
    },
    "mmlu-pro-medical": {
        "question_id": 7,
        "question": " Which organ makes insulin?",
        "options": [" Pancreas", "Liver ", "Spleen", "N/A"],
        "answer": "A",
        "answer_index": 0,
        "category": "health",
    },
    "gpqa-medical": {
        "Question": "Which base stands in RNA alone?",
        "Correct Answer": "Uracil",
        "Incorrect Answer 1": "Adenine",
        "Incorrect Answer 2": "Cytosine",
        "Incorrect Answer 3": "Guanine",
        "Subdomain": "Molecular Biology",
    },
    "medxpertqa": {
        "id": "Text-1",
        "question": "What is missing?\nAnswer Choices: (A) Thiamine (B) Ascorbic acid",
        "options": {"A": "Thiamine", "B": "Ascorbic acid"},
        "label": "B",
    },
}
for _name in ("no-context", "artificial", "artificial-no-context"):
    ROWS[f"pubmedqa-{_name}"] = ROWS["pubmedqa"]
ROWS["alphamed19k"] = {
    "question": "A sailor has bleeding gums. What is missing?\nA: Thiamine\nB: Ascorbic acid",
    "answer": "B",
}
ROWS["verl"] = {
    "data_source": "sailors",
    "prompt": [{"role": "user", "content": "What is missing?\nA. Thiamine\nB. Ascorbic acid\n"}],
    "reward_model": {"style": "rule", "ground_truth": "B"},
    "extra_info": {"index": 0},
}

RENDERED = {
    "pubmedqa-artificial": (
        "Forty adults walked.\nPressure fell.\n\nDoes walking help?\n\n"
        "A. yes\nB. no\n\n"
        "Reason step by step, then give the letter of the correct option within \\boxed{}."
    ),
    "pubmedqa-artificial-no-context": (
        "Does walking help?\n\n"
        "A. yes\nB. no\n\n"
        "Reason step by step, then give the letter of the correct option within \\boxed{}."
    ),
    "alphamed19k": (
        "A sailor has bleeding gums. What is missing?\n\n"
        "A. Thiamine\nB. Ascorbic acid\n\n"
        "Reason step by step, then give the letter of the correct option within \\boxed{}."
    ),
    # Its messages are the prompt.
    "verl": "What is missing?\nA. Thiamine\nB. Ascorbic acid\n",
    "quickstart": (
        "Fever, neck stiffness, photophobia. First-line treatment?\n\n"
        "A. Ceftriaxone\nB. Insulin\nC. Levothyroxine\nD. Heparin\n\n"
        "Reason step by step, then give the letter of the correct option within \\boxed{}."
    ),
    "medmcqa": (
        "Which vitamin is given for scurvy?\n\n"
        "A. A1\nB. B12\nC. C\nD. D3\n\n"
        "Reason step by step, then give the letter of the correct option within \\boxed{}."
    ),
    "medqa": (
        "A sailor has bleeding gums. What is missing?\n\n"
        "A. Thiamine\nB. Ascorbic acid\nC. Niacin\nD. Retinol\n\n"
        "Reason step by step, then give the letter of the correct option within \\boxed{}."
    ),
    "pubmedqa": (
        "Forty adults walked.\nPressure fell.\n\nDoes walking help?\n\n"
        "A. yes\nB. no\nC. maybe\n\n"
        "Reason step by step, then give the letter of the correct option within \\boxed{}."
    ),
    "pubmedqa-no-context": (
        "Does walking help?\n\n"
        "A. yes\nB. no\nC. maybe\n\n"
        "Reason step by step, then give the letter of the correct option within \\boxed{}."
    ),
    "mmlu-pro-medical": (
        "Which organ makes insulin?\n\n"
        "A. Pancreas\nB. Liver\nC. Spleen\n\n"
        "Reason step by step, then give the letter of the correct option within \\boxed{}."
    ),
    "gpqa-medical": (
        "Which base stands in RNA alone?\n\n"
        "A. Uracil\nB. Adenine\nC. Guanine\nD. Cytosine\n\n"
        "Reason step by step, then give the letter of the correct option within \\boxed{}."
    ),
    "medxpertqa": (
        "What is missing?\n\n"
        "A. Thiamine\nB. Ascorbic acid\n\n"
        "Reason step by step, then give the letter of the correct option within \\boxed{}."
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_the_prompt_of_each_source_character_by_character(name: str):
    question = SOURCES[name].convert(ROWS[name], name)

    assert prompt_text(question, PromptConfig()) == RENDERED[name]


@pytest.mark.parametrize("name", SOURCES)
def test_no_prompt_of_any_source_lacks_an_option(name: str):
    question = SOURCES[name].convert(ROWS[name], name)

    lines = prompt_text(question, PromptConfig()).splitlines()

    for letter, option in zip("ABCDEFGHIJ", question.options, strict=False):
        assert lines.count(f"{letter}. {option}") == 1
