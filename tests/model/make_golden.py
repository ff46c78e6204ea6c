"""Make golden files from the reference implementation: `python make_golden.py [VARIANT ..]`.

Needs torch. Each golden/VARIANT is a Hugging Face folder with weights in 16 bits, and
`expected.npz`: tokens, hidden states and logits in float32 at a few positions.
"""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(Path(__file__).parent)]

from parity_cases import VARIANTS, compared_positions, length  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"
# Both spellings of the rotary settings are among the golden files.
IN_BFLOAT16 = ("smollm2_tied", "qwen2_biases", "qwen3_tied")
OLD_SPELLING = ("llama31_factor8", "own_head_dim_eps_theta", "llama2_mha_untied")


def build(variant, seed=0, dtype=torch.float32):
    """A random network in float32 with weights of `dtype`, as large as those of a trained one."""
    settings = dict(VARIANTS[variant])
    family = settings.pop("model_type").capitalize()
    config = getattr(transformers, f"{family}Config")(**settings, attn_implementation="eager")
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if name.endswith("norm.weight"):
                value = 1 + 0.2 * noise
            elif name.endswith("bias"):
                value = 0.5 * noise
            elif "embed" in name:
                value = 0.3 * noise
            else:
                value = noise * weight.shape[1] ** -0.5
            weight.copy_(value.to(dtype))
    return model


def store(model, folder, dtype=torch.float32, **options):
    """Save in `dtype`. The model itself stays float32: a cast would round its frequencies too."""
    copy.deepcopy(model).to(dtype).save_pretrained(folder, **options)


def run(model, tokens):
    """Hidden states (embeddings, after each layer but the last, final norm) and logits."""
    with torch.no_grad():
        output = model(torch.from_numpy(tokens), output_hidden_states=True)
    return [state.numpy() for state in output.hidden_states], output.logits.numpy()


def random_tokens(variant, rows=1, seed=1):
    """Token ids [rows T], int64."""
    shape = (rows, length(variant))
    return np.random.default_rng(seed).integers(0, VARIANTS[variant]["vocab_size"], shape)


def respell(folder):
    """Rewrite config.json from the spelling of transformers 5.x to that of 4.x."""
    path = folder / "config.json"
    content = json.loads(path.read_text())
    rope = content.pop("rope_parameters")
    content["rope_theta"] = rope.pop("rope_theta")
    content["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    content["torch_dtype"] = content.pop("dtype")
    path.write_text(json.dumps(content, indent=2) + "\n")


def main():
    for variant in sys.argv[1:] or VARIANTS:
        folder = GOLDEN / variant
        dtype = torch.bfloat16 if variant in IN_BFLOAT16 else torch.float16
        model = build(variant, dtype=dtype)
        store(model, folder, dtype)
        if variant in OLD_SPELLING:
            respell(folder)
        tokens, positions = random_tokens(variant), compared_positions(variant)
        states, logits = run(model, tokens)
        np.savez_compressed(
            folder / "expected.npz",
            tokens=tokens.astype(np.uint8),
            positions=positions,
            states=np.stack([state[:, positions] for state in states]),
            logits=logits[:, positions],
        )
        (folder / "generation_config.json").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
