"""Questions on disk are what they were, and those with too long prompts are counted, not cut."""

import itertools
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphamed_jax import embedded
from alphamed_jax.config import PromptConfig
from alphamed_jax.curation.question_file import Limits, question_lengths, store_questions
from alphamed_jax.data.prompts import encode_prompt
from alphamed_jax.data.questions import Question
from alphamed_jax.data.tokenizer import load_tokenizer
from alphamed_jax.errors import UserError

TOKENIZER = load_tokenizer(embedded.MODEL)
PROMPT = PromptConfig(style="plain")
ANY = Limits(10_000, 10_000)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)
ROWS = st.fixed_dictionaries(
    {
        "id": TEXT,
        "stem": TEXT,
        "options": st.lists(TEXT, min_size=2, max_size=5).map(tuple),
        "answer": st.sampled_from("AB"),
        "source": st.sampled_from(["medqa", "medmcqa"]),
        "meta": st.dictionaries(st.sampled_from(["topic", "hops"]), st.integers() | TEXT),
    }
)


def a_question(number, words=3):
    return Question(f"q{number}", "fever " * words, ("one", "two"), "A", "made-up")


def stored(questions, limits=ANY):
    return store_questions(TOKENIZER, questions, PROMPT, limits)


@given(st.lists(ROWS, min_size=1, max_size=4))
@settings(max_examples=30)
def test_each_question_comes_back_with_its_prompt_and_lengths(rows):
    questions = [Question(**row) for row in rows]
    with stored(iter(questions)) as found:
        assert len(found) == len(questions)
        for number in reversed(range(len(questions))):
            prompt, question = found[number], questions[number]
            assert prompt.question == question
            assert prompt.question.meta == question.meta
            assert prompt.token_ids == encode_prompt(TOKENIZER, question, PROMPT)
            assert found.prompt_tokens[number] == len(prompt.token_ids)
        assert found.question_tokens.tolist() == question_lengths(
            TOKENIZER, [one.stem for one in questions]
        )


def test_the_length_of_a_question_is_of_its_text_alone():
    with stored([a_question(0, words=3), a_question(1, words=30)]) as found:
        assert found.question_tokens[1] > 9 * found.question_tokens[0]
        assert (found.question_tokens < found.prompt_tokens).all()


def test_too_long_prompts_are_counted_and_all_too_long_is_an_error():
    questions = [a_question(0), a_question(1, words=40), a_question(2, words=80)]
    with stored(questions) as whole:
        short, middle, longest = whole.prompt_tokens.tolist()
    with stored(questions, Limits(middle, 10_000)) as found:
        assert [one.question.id for one in found] == ["q0", "q1"]
        assert found.not_asked == {f"prompt longer than {middle} tokens": 1}
    with stored(questions, Limits(longest, short)) as found:
        assert found.sources == {"made-up": 1}
        assert found.not_asked == {"prompt and response longer than the model's context": 2}
    with pytest.raises(
        UserError, match=rf"the shortest has {short} tokens\); raise --max-prompt-t"
    ):
        stored(questions, Limits(3, 10_000))
    with pytest.raises(UserError, match="lower --max-new-tokens: the model's context leaves 0 to"):
        stored(questions, Limits(100, -5))
    with pytest.raises(UserError, match="no questions to score"):
        stored([])


def test_fingerprints_tell_questions_answers_order_and_prompts_apart():
    one, two = a_question(0), a_question(1)
    other_key = Question(one.id, one.stem, one.options, "B", one.source)
    seen = set()
    for questions in ([one, two], [two, one], [one], [other_key, two]):
        with stored(questions) as found:
            seen.add((found.fingerprint, found.prompts_digest))
    with stored([one, two]) as again:
        assert (again.fingerprint, again.prompts_digest) in seen
    assert len(seen) == len({fingerprint for fingerprint, _ in seen}) == 4


def test_questions_are_taken_some_hundred_at_a_time():
    taken = itertools.count()
    seen_at = []

    def many():
        for number in range(1100):
            next(taken)
            yield a_question(number)

    def chunks(tokenizer, stems):
        seen_at.append((next(taken), len(stems)))
        return question_lengths(tokenizer, stems)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("alphamed_jax.curation.question_file.question_lengths", chunks)
        with stored(many()) as found:
            assert len(found) == 1100
    # Each part was written before the next was asked for.
    assert [size for _, size in seen_at] == [512, 512, 76]
    assert [at for at, _ in seen_at] == [512, 512 + 1 + 512, 1100 + 2]


def test_a_full_disk_names_the_folder_and_what_to_do(monkeypatch):
    class Full:
        def write(self, _):
            raise OSError(28, "No space left on device")

        def close(self):
            self.closed = True

    full = Full()
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
    with pytest.raises(UserError, match=r"no space left on the device.*set TMPDIR to a folder"):
        stored([a_question(0)])
    assert full.closed
