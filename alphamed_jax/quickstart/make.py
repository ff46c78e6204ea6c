"""`python -m alphamed_jax.quickstart.make`: make the quickstart's questions and base model again.

The same arguments give the same questions everywhere, and the same model on the same machine.
"""

import json
import os
import random
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from alphamed_jax import cli, embedded
from alphamed_jax.config import PromptConfig, load_config
from alphamed_jax.config_io import flags_of, user_path
from alphamed_jax.errors import UserError
from alphamed_jax.model import hf, network
from alphamed_jax.model.config import ModelConfig, Params
from alphamed_jax.quickstart import corpus, questions, tokenizer
from alphamed_jax.quickstart.measure import Measure
from alphamed_jax.quickstart.pretrain import PretrainConfig, model_config, pretrain
from alphamed_jax.runtime import platforms
from alphamed_jax.runtime.streams import say_warning

VOCABULARY = 2176
"""A multiple of 64, so that any mesh divides it, and room for nearly every term as one token."""
CORPUS = 8000
"""Examples that the tokenizer is trained on."""
ENOUGH = 0.8
"""Accuracy of stepwise answers below which reinforcement learning has too little to select."""


@dataclass(frozen=True)
class Arguments:
    """Make the quickstart's questions, tokenizer and base model (about 3 minutes on 2 cores)."""

    output: str = "runs/quickstart_base"
    """Folder for questions_train.jsonl, questions_heldout.jsonl and model/."""
    steps: int = PretrainConfig.steps
    """Optimiser steps of the pretraining."""
    seed: int = 0


def make_tokenizer(prompt: PromptConfig):
    """The tokenizer of a fixed sample of the pretraining text."""
    rng = random.Random("tokenizer")
    examples = [corpus.qa(rng, prompt, in_steps=bool(i % 2)) for i in range(CORPUS)]
    texts = [example.prompt + example.response for example in examples]
    return tokenizer.train([*texts, *corpus.vocabulary()], VOCABULARY)


def save_model(folder: Path, config: ModelConfig, params: Params, tokens) -> None:
    """Write an ordinary Hugging Face folder: weights, config, tokenizer, generation config."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name)
        tokenizer.save(tokens, source, config.max_position_embeddings)
        generation = {
            "bos_token_id": tokens.bos_token_id,
            "eos_token_id": tokens.eos_token_id,
            "pad_token_id": tokens.pad_token_id,
            "do_sample": True,
        }
        (source / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
        hf.save(folder, config, params, tokenizer_source=source)


def make(arguments: Arguments) -> None:
    """Make everything and write it; progress goes to the terminal.

    Raises:
      UserError: the output cannot be a folder, or `steps` is not positive.
    """
    if arguments.steps < 1:
        raise UserError(f"--steps {arguments.steps}: expected at least 1.")
    output = Path(user_path(arguments.output, "output"))
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output}: is a file. Name a folder.")
    output.mkdir(parents=True, exist_ok=True)
    questions.write(output)
    heldout = questions.build()[1]
    prompt = load_config(embedded.CONFIG).prompt
    tokens = make_tokenizer(prompt)
    config = model_config(VOCABULARY)
    settings = replace(PretrainConfig(), steps=arguments.steps)
    print(f"questions in {output}; pretraining {network.count_parameters(config):,} parameters")
    measure = Measure(tokens, config, prompt, heldout, settings.length)
    last = {}

    def report(step: int, loss: float, left: float, params: Params) -> None:
        last.update(measure(params))
        figures = "  ".join(f"{name} {value:.2f}" for name, value in last.items())
        print(
            f"step {step}/{settings.steps}  loss {loss:.3f}  {figures}  left {left:.0f} s",
            flush=True,
        )

    params = pretrain(tokens, config, prompt, settings, arguments.seed, report)
    save_model(output / "model", config, params, tokens)
    print(f"saved {output / 'model'}")
    if last["in steps"] < ENOUGH:
        say_warning(f"stepwise accuracy {last['in steps']:.2f} is below {ENOUGH}; train longer.")


def start(arguments: Arguments) -> None:
    """Choose the platform, then make everything."""
    platforms.prepare(os.environ.get("JAX_PLATFORMS") or "cpu")
    platforms.open_devices()
    make(arguments)


def main() -> None:
    cli.run("quickstart.make", start, flags_of(Arguments()), __doc__)


if __name__ == "__main__":
    main()
