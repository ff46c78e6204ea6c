"""A whole run small enough for a test: a tiny random Llama, its tokenizer, and questions.

The tokenizer has boxed letters as single tokens, many of each, so that a random model answers
often enough for effective groups.
"""

import io
import json
from pathlib import Path

import jax
from rich.console import Console
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from alphamed_jax import train as trainer
from alphamed_jax.config import (
    Config,
    EvalConfig,
    LogConfig,
    OptimizerConfig,
    PromptConfig,
    RolloutConfig,
    UpdateConfig,
)
from alphamed_jax.model import hf, modules
from alphamed_jax.model.config import ModelConfig

MODEL = ModelConfig(
    vocab_size=320,
    hidden_size=32,
    intermediate_size=64,
    num_layers=2,
    num_heads=8,
    num_kv_heads=4,
    head_dim=4,
    tie_embeddings=True,
)


def write_model(folder: Path) -> Path:
    """Write the model as an ordinary Hugging Face folder."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    boxes = [" " * n + f"\\boxed{{{letter}}}" for n in range(15) for letter in "ABCD"]
    tokenizer.add_tokens([AddedToken(box, normalized=False) for box in boxes])
    source = folder.parent / (folder.name + "-tokenizer")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>"
    ).save_pretrained(source)
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": 256}))
    hf.save(folder, MODEL, modules.init(MODEL, jax.random.key(0)), tokenizer_source=source)
    return folder


def write_questions(path: Path, count: int = 40) -> Path:
    """Write questions in the package's own schema."""
    rows = [
        {
            "id": f"q{i}",
            "question": f"Number {i}?" + "x" * (i % 9),
            "options": ["one", "two", "three", "four"],
            "answer": "ABCD"[i % 4],
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_inputs(folder: Path) -> Path:
    """Write model and questions where `tiny_config` looks for them."""
    write_model(folder / "model")
    write_questions(folder / "questions.jsonl")
    return folder


def run(config: Config) -> str:
    """Train in this process; return what was printed."""
    console = Console(file=io.StringIO(), width=2000)
    trainer.train(config, console)
    return console.file.getvalue()


def tiny_config(folder: Path, output: Path, **changes) -> Config:
    """Eight sequences a step, on the model and questions that lie in `folder`."""
    defaults = {
        "model": str(folder / "model"),
        "data": (str(folder / "questions.jsonl"),),
        "output": str(output),
        "mesh": "8x1",
        "steps": 6,
        "checkpoint_every": 2,
        "prompt": PromptConfig(instruction="", question_format="{question}\n{options}"),
        "rollout": RolloutConfig(prompts=4, group_size=4, max_new_tokens=12),
        "optimizer": OptimizerConfig(learning_rate=1e-3, warmup_updates=2),
        "update": UpdateConfig(micro_batch=8, remat="none"),
        "eval": EvalConfig(questions=6),
        "log": LogConfig(samples=3, table_every=4),
    }
    return Config(**(defaults | changes))


def rows_of(path: Path) -> list[dict]:
    """Rows of a JSONL file without what a clock decides."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        {k: v for k, v in row.items() if not k.startswith(("time/", "throughput/"))} for row in rows
    ]
