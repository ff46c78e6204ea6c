"""Invented questions of a benchmark, what of them was planted in a set, and what only looks so."""

from dataclasses import dataclass

from alphamed_jax.data.questions import Question

VIGNETTE = (
    "A 47-year-old beekeeper comes to the physician because of a 3-week history of tingling in "
    "both hands and a rash that spares the palms. He has kept ferrets since last spring. His "
    "temperature is 37.4°C (99.3°F), and examination shows violet papules over the wrists. Which "
    "of the following is the most likely cause of his symptoms?"
)
TRIAL = "Does evening gargling with chamomile shorten the stay in hospital after tonsillectomy?"
ABSTRACT = "Two hundred adults gargled or did not.\nThe stay was measured in hours."
ENDING = "Which of the following is the most appropriate next step in management of this patient?"


def question(name, stem, options, answer="A", source="planted"):
    return Question(name, stem, tuple(options), answer, source)


BENCHMARK = (
    question("vignette", VIGNETTE, ("Ferret mite", "Lead", "Zinc lack", "Nickel")),
    question("trial", TRIAL, ("yes", "no", "maybe"), source="pubmedqa"),
    question("antidote", "Antidote of heparin?", ("Protamine", "Naloxone", "Atropine", "EDTA")),
    question(
        "enzyme",
        "The enzyme that is lacking in the invented disease of Sjöwall splits which sugar?",
        ("Raffinose", "Sucrose", "Maltose", "Lactose"),
    ),
    question(
        "nerve",
        "Which nerve is injured most often when the neck of the fibula is broken in a fall?",
        ("Common peroneal", "Tibial", "Sural", "Femoral"),
    ),
    question("true", "Which of the following is true?", ("Bile is green", "Milk is red"), "A"),
    question("hdl", "HDL is synthesised in", ("Liver", "Spleen", "Lung", "Skin")),
    question(
        "rickets",
        "Which of the following findings is not seen in a child with rickets of the knee?",
        ("Narrow metaphysis", "Cupping", "Fraying", "Bowing"),
    ),
    *(
        question(
            f"case-{i}",
            f"A {30 + i}-year-old {who} has {what} since the morning. {ENDING}",
            (f"{what} drug", "Rest", "Surgery", f"Scan {i}"),
        )
        for i, (who, what) in enumerate(
            (("baker", "hiccups"), ("pilot", "a red eye"), ("diver", "earache"))
        )
    ),
)


@dataclass(frozen=True)
class Planted:
    """A question of a set, and the benchmark's question that it is."""

    how: str
    """What was done to it."""
    question: Question
    of: str | None
    """Id in the benchmark; None: it is another question."""


def _planted(how, stem, options, answer="A", of=None, source="set"):
    return Planted(how, question(how, stem, options, answer, source), of)


_BY_ID = {one.id: one for one in BENCHMARK}


def _copy(how, of, stem=None, options=None, answer="A"):
    found = _BY_ID[of]
    return _planted(how, stem or found.stem, options or found.options, answer, of)


LEAKED = (
    _copy("copied", "vignette"),
    _copy("copied, short", "antidote"),
    _copy("options swapped", "nerve", options=("Sural", "Tibial", "Common peroneal"), answer="C"),
    _copy("options swapped, short", "antidote", options=("Atropine", "Protamine"), answer="B"),
    _copy("other options", "vignette", options=("Scabies", "Gout", "Ferret mite"), answer="C"),
    _copy("lines wrapped", "vignette", VIGNETTE.replace(" of ", " of\n").replace(". ", ".\n\n")),
    _copy("case and marks", "nerve", _BY_ID["nerve"].stem.upper().replace("?", " ?!")),
    _copy("accents and tags", "enzyme", _BY_ID["enzyme"].stem.replace("Sjöwall", "<i>Sjowall</i>")),
    _copy(
        "a few words changed",
        "vignette",
        VIGNETTE.replace("comes to the physician", "presents to a doctor").replace(
            "He has kept ferrets", "The man has owned ferrets"
        ),
    ),
    _copy(
        "words changed, options agree",
        "nerve",
        "Which nerve is injured most often when the neck of the fibula is broken by falling down?",
    ),
    _copy(
        "every fifth word changed",
        "nerve",
        "Which nerve is injured most commonly when the fibular neck is broken in a fall?",
    ),
    _copy("one word more, short", "antidote", "What is the antidote of heparin?"),
    _copy(
        "a piece within another text",
        "vignette",
        "A farmer writes. He has kept ferrets since last spring. His temperature is 37.4°C "
        "(99.3°F), and examination shows violet papules over the wrists. What does he have?",
        ("Lead", "Zinc"),
    ),
    _copy(
        "behind an abstract",
        "trial",
        f"{ABSTRACT}\n\n{TRIAL}",
    ),
    _copy(
        "within an instruction",
        "enzyme",
        f"Answer this question with care. {_BY_ID['enzyme'].stem} Give one letter.",
    ),
    _copy(
        "told anew",
        "vignette",
        "Violet papules on the wrists and tingling hands brought a man of 47, who keeps bees and "
        "ferrets, to his doctor. What explains them best?",
    ),
)

LOOK_ALIKES = (
    _planted("stem of many", "Which of the following is true?", ("Iron is soft", "Gold is hard")),
    _planted("same options", "Antidote of opium?", _BY_ID["antidote"].options, "B"),
    _planted("one word, other organ", "HDL is broken down in", ("Kidney", "Spleen", "Lung")),
    _planted("one syllable", "VLDL is synthesised in", ("Liver", "Spleen", "Lung", "Skin")),
    _planted(
        "same template, other bone",
        "Which nerve is injured most often when the shaft of the humerus is hit in a crash?",
        ("Radial", "Ulnar", "Median", "Axillary"),
    ),
    _planted(
        "last sentence shared", f"A 9-year-old girl cannot whistle. {ENDING}", ("Wait", "Run")
    ),
    _planted(
        "last sentence and a word shared", f"A clown laughs this morning. {ENDING}", ("Wait", "Run")
    ),
    _planted(
        "turned into its opposite",
        "Which of the following findings is seen in a child with rickets of the knee?",
        ("Cupping", "Narrow metaphysis", "Sclerosis", "Cysts"),
    ),
    _planted(
        "vignette of the same make",
        "A 52-year-old potter comes to the physician because of a 2-day history of pain in both "
        "feet and a cough that wakes him. He has smoked since school. His temperature is 38.1°C "
        "(100.6°F), and examination shows clubbed fingers. Which of the following is the most "
        "likely cause of his symptoms?",
        ("Cancer", "Gout", "Flu", "Asthma"),
    ),
    _planted(
        "same abstract, other question",
        f"{ABSTRACT}\n\nIs gargling at night with chamomile tea well tolerated by old adults?",
        ("yes", "no", "maybe"),
        source="pubmedqa",
    ),
    *(
        _planted(
            f"instruction shared {i}",
            "Read the following question with great care, think about each of the options, and "
            f"put your answer in a box. Which organ makes the hormone named {word}?",
            (f"Gland {i}", "Heart"),
            source="framed",
        )
        for i, word in enumerate(f"{a}{b}in" for a in "bcdfg" for b in ("ala", "eno", "iru", "uto"))
    ),
    _planted("nothing alike", "Name the bone that children chew.", ("None", "All"), "A"),
)
