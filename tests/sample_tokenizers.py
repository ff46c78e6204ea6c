"""Small real tokenizers of both kinds, trained on the spot."""

from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

LINES = [
    "<think>The findings suggest sepsis.</think> So the answer is \\boxed{A}.",
    "Metformin lowers glucose: \\boxed{\\text{(B) Metformin}} or $\\boxed{C}$.",
    "**\\fbox{D.}** not \\boxed{\\textbf{E: Insulin (XR)}}, \\mathrm{x} \\mathbf{y} \\textit{z}",
    "β-blockers, naïve and café; 5 µg/kg [A] {B} (C) \\[ x \\] 日本語",
]


def byte_level(
    vocab_size: int = 500, added: tuple[str, ...] = ("<think>", "</think>", "\\boxed{", "ü }")
) -> PreTrainedTokenizerFast:
    """Byte-level BPE as Llama 3 has it; the thinking tags are one token each, and text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(LINES * 20, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.add_tokens(list(added))
    return tokenizer


def llama2_folder(folder: Path, model_type: str = "bpe") -> Path:
    """A folder as Llama 2 has it: `tokenizer.model` of SentencePiece with byte fallback."""
    (folder / "text.txt").write_text("\n".join(LINES * 50), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "tokenizer"),
        model_type=model_type,
        vocab_size=400,
        byte_fallback=True,
        character_coverage=0.98,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        minloglevel=2,
    )
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>",'
        ' "unk_token": "<unk>", "legacy": false}'
    )
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder
