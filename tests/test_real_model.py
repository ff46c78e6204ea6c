"""A real model on real questions, by the ordinary command, and back into transformers."""

import importlib.util
import json
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from alphamed_jax.model import hf, network
from alphamed_jax.output.metrics import METRIC_KEYS


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.torch
def test_smollm2_trains_on_medmcqa_and_pubmedqa_and_loads_in_transformers(shared, tmp_path):
    torch = pytest.importorskip("torch", reason="compares with transformers on torch")
    if importlib.util.find_spec("gguf") is None:
        pytest.skip("unpacking the real model needs gguf: pip install -e '.[parity]'")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # Given SmolLM2-135M-Instruct as a Hugging Face folder,
    model, output = tmp_path / "SmolLM2-135M-Instruct", tmp_path / "run"
    script = shared / "tools" / "smollm2_to_hf.py"
    subprocess.run([sys.executable, str(script), str(model)], check=True)
    # when it is trained for three steps of 4 x 4 x 64,
    flags = {
        "--model": [str(model)],
        "--data": [
            f"medmcqa={shared / 'data' / 'medmcqa_train.jsonl'}",
            f"pubmedqa={shared / 'data' / 'pubmedqa_labeled_dev.jsonl'}",
        ],
        "--output": [str(output)],
        "--steps": ["3"],
        "--rollout.prompts": ["4"],
        "--rollout.group-size": ["4"],
        "--rollout.max-new-tokens": ["64"],
        "--prompt.max-tokens": ["384"],  # the longest decides how wide all rows are
        "--update.micro-batch": ["16"],
        # Every group enters the forward pass, so that the trainer's log-probabilities are measured
        # even where the small model answers nothing right.
        "--update.no-skip-constant-groups": [],
        "--eval.questions": ["4"],
        "--log.table-every": ["0"],
    }
    words = [word for flag, values in flags.items() for word in (flag, *values)]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    subprocess.run(
        [sys.executable, "-m", "alphamed_jax.train", *words], check=True, env=environment
    )
    # then there is a full row for each step, with each source's metrics beside, sampler and trainer
    # agree,
    of_sources = [
        f"source/{name}/{key}"
        for name in ("medmcqa", "pubmedqa")
        for key in ("reward", "length", "effective")
    ]
    rows = [json.loads(line) for line in (output / "metrics.jsonl").open()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        print(json.dumps(row))
        in_training = [key for key in row if not key.startswith("eval/")]
        assert in_training == [*METRIC_KEYS, *of_sources]
        assert row["tokens/trained"] == row["tokens/generated"]
        assert row["sampler_gap/max"] < 1e-3
        assert row["updates/skipped"] == 0
    # and the export gives transformers our logits.
    tokenizer = AutoTokenizer.from_pretrained(output / "export")
    reference = AutoModelForCausalLM.from_pretrained(output / "export", dtype=torch.float32)
    ids = np.array([tokenizer("Which vitamin deficiency causes scurvy?")["input_ids"]])
    with torch.no_grad():
        expected = reference(torch.tensor(ids)).logits.numpy()
    config, params = hf.load(output / "export", dtype=jnp.float32)
    found = network.logits(config, params, jnp.asarray(ids, jnp.int32))
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-3)
