"""Loading a tokenizer, its stop ids, and the bytes of its tokens."""

import json

import pytest
from sample_tokenizers import LINES, byte_level, llama2_folder
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from alphamed_jax.data.tokenizer import known_tokens, load_tokenizer, stop_ids, token_bytes
from alphamed_jax.errors import UserError


@pytest.fixture(scope="module")
def bpe():
    return byte_level()


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def llama2(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return load_tokenizer(llama2_folder(folder, request.param))


def joined(tokenizer, text):
    data = token_bytes(tokenizer)
    return b"".join(data[token] for token in tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("text", [*LINES, "a\n\n\tb  c", "𝛽 \x00\x7f \u200b"])
def test_the_bytes_of_an_encoded_text_are_the_text(bpe, llama2, text):
    assert joined(bpe, text) == text.encode()
    assert joined(llama2, text) == b" " + text.encode()  # SentencePiece puts a space first


def test_special_tokens_add_nothing_and_other_added_tokens_are_text(bpe, llama2):
    data = token_bytes(bpe)
    assert [data[token] for token in bpe.all_special_ids] == [b""] * 3
    assert data[bpe.convert_tokens_to_ids("<think>")] == b"<think>"
    assert data[bpe.convert_tokens_to_ids("ü }")] == "ü }".encode()
    data = token_bytes(llama2)
    assert [data[llama2.convert_tokens_to_ids(name)] for name in ("<s>", "</s>", "<unk>")] == [
        b"",
        b"",
        b"",
    ]


@pytest.mark.parametrize("as_extra", [False, True])
def test_special_tokens_that_are_text_to_the_model_are_text(as_extra, tmp_path):
    """Special or not: a tokenizer's way to split text does not change what a tag means."""
    text = ["<think>", "</think>", "\\boxed{"]
    signs = ["<|eot_id|>", "[INST]", "[/INST]", "<\uff5cAssistant\uff5c>", "<tool_call>"]
    tokenizer = byte_level(added=())
    if as_extra:
        tokenizer.add_special_tokens({"additional_special_tokens": text + signs})
    else:
        tokenizer.add_tokens([AddedToken(t, special=True) for t in text + signs])
    tokenizer.save_pretrained(tmp_path)
    for loaded in (tokenizer, load_tokenizer(tmp_path)):
        data = token_bytes(loaded)
        ids = {name: loaded.convert_tokens_to_ids(name) for name in text + signs}
        assert len(set(ids.values())) == len(ids)
        assert loaded.added_tokens_decoder[ids["<think>"]].special
        assert [data[ids[name]].decode() for name in text] == text
        assert [data[ids[name]] for name in signs] == [b""] * len(signs)
        assert [data[token] for token in range(3)] == [b""] * 3


def test_byte_tokens_are_bytes(llama2):
    data = token_bytes(llama2)
    assert [data[llama2.convert_tokens_to_ids(f"<0x{byte:02X}>")] for byte in range(256)] == [
        bytes([byte]) for byte in range(256)
    ]


def test_ids_without_a_token_add_nothing():
    backend = Tokenizer(models.BPE({"a": 0, "b": 3}, []))
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert token_bytes(tokenizer) == [b"a", b"", b"", b"b"]


def test_embedding_rows_without_a_token_are_told_from_those_with_one():
    backend = Tokenizer(models.BPE({"a": 0, "b": 3}, []))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    tokenizer.add_special_tokens({"eos_token": "</s>"})
    [end] = tokenizer.all_special_ids
    known = known_tokens(tokenizer, 8)
    assert known.shape == (8,)
    assert set(known.nonzero()[0]) == {0, 3, end}


def test_every_row_of_a_tokenizer_of_the_same_size_has_a_token(bpe, llama2):
    assert known_tokens(bpe, len(bpe)).all()
    assert known_tokens(llama2, len(llama2)).all()


def test_a_tokenizer_with_more_ids_than_embedding_rows_is_refused(bpe):
    last = len(bpe) - 1
    with pytest.raises(UserError, match=rf"the model has {last} rows .* has id {last}\."):
        known_tokens(bpe, last)


@pytest.mark.parametrize("decoder", [None, decoders.WordPiece()])
def test_a_tokenizer_of_another_kind_is_refused(decoder):
    backend = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    if decoder is not None:
        backend.decoder = decoder
    with pytest.raises(UserError, match="expected byte-level BPE"):
        token_bytes(PreTrainedTokenizerFast(tokenizer_object=backend))


def test_a_saved_tokenizer_is_loaded(bpe, tmp_path):
    bpe.save_pretrained(tmp_path)
    assert token_bytes(load_tokenizer(tmp_path)) == token_bytes(bpe)


def test_a_folder_without_tokenizer_is_one_clear_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match="no tokenizer there") as error:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_broken_tokenizer_file_is_one_clear_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "tokenizer.json").write_text("{broken")
    with pytest.raises(UserError, match="cannot be loaded") as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


def test_code_in_a_folder_is_never_run(tmp_path):
    (tmp_path / "tokenizer.model").write_text("")
    (tmp_path / "mine.py").write_text("raise SystemExit('code of the folder was run')")
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}})
    )
    with pytest.raises(UserError, match="cannot be loaded"):
        load_tokenizer(tmp_path)


def test_an_unknown_hub_id_is_one_clear_line():
    with pytest.raises(UserError, match="nobody/nothing"):
        load_tokenizer("nobody/nothing")


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": [301, 308, 309]}, {"eos_token_id": 5}, (301, 308, 309, 5, 1)),
        ({"eos_token_id": 7}, {"eos_token_id": [5, 6]}, (7, 5, 6, 1)),
        ({"eos_token_id": [9, 2, 9]}, None, (9, 2, 1)),
        ({"eos_token_id": 0}, None, (0, 1)),
        ({"eos_token_id": 1}, {"eos_token_id": 1}, (1,)),
        ({"temperature": 0.6}, {"eos_token_id": [5, 6]}, (5, 6, 1)),
        (None, {"eos_token_id": 5}, (5, 1)),
        (None, {"eos_token_id": None}, (1,)),
        (None, None, (1,)),
    ],
)
def test_stop_ids_are_those_of_all_places_that_name_some(
    bpe, tmp_path, generation, config, expected
):
    for name, content in (("generation_config", generation), ("config", config)):
        if content is not None:
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert bpe.eos_token_id == 1
    assert stop_ids(tmp_path, bpe) == expected


@pytest.mark.parametrize("found", ["</s>", [], [1, "2"], True, -1, {}])
def test_stop_ids_that_are_no_ids_are_refused_with_the_file(bpe, tmp_path, found):
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": found}))
    with pytest.raises(UserError, match=r"generation_config\.json: eos_token_id"):
        stop_ids(tmp_path, bpe)


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_a_stop_id_beyond_the_vocabulary_is_refused_with_the_file(bpe, tmp_path, name):
    (tmp_path / name).write_text(json.dumps({"eos_token_id": [7, 504]}))
    assert 504 in stop_ids(tmp_path, bpe, vocab_size=505)
    with pytest.raises(UserError, match=rf"{name}: eos_token_id 504 is beyond .* of 504 ids"):
        stop_ids(tmp_path, bpe, vocab_size=504)


@pytest.mark.parametrize(
    ("settings", "begins"),
    [
        (None, True),
        ({"tokenizer_class": "LlamaTokenizer"}, True),
        ({"tokenizer_class": "LlamaTokenizer", "add_bos_token": None}, True),
        ({"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}, True),
        ({"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}, False),
    ],
)
def test_a_sentencepiece_model_alone_begins_a_sequence(tmp_path, settings, begins):
    folder = llama2_folder(tmp_path)
    (folder / "tokenizer_config.json").unlink()
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(folder)
    ids = tokenizer("Fever")["input_ids"]
    assert (ids[0] == tokenizer.bos_token_id) == begins
    assert ids.count(tokenizer.bos_token_id) == int(begins)


def test_a_saved_tokenizer_keeps_its_word_about_the_beginning(bpe, tmp_path):
    bpe.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path)("Fever")["input_ids"] == bpe("Fever")["input_ids"]


def test_a_model_that_nothing_ends_is_refused(tmp_path):
    backend = Tokenizer(models.BPE({"a": 0}, []))
    with pytest.raises(UserError, match="no token ends a response"):
        stop_ids(tmp_path, PreTrainedTokenizerFast(tokenizer_object=backend))


def test_a_broken_generation_config_is_one_clear_line(bpe, tmp_path):
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(UserError, match=r"generation_config\.json: not valid JSON"):
        stop_ids(tmp_path, bpe)
