"""A Hugging Face model folder: where it is, what is in it, and its config.json."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alphamed_jax import embedded
from alphamed_jax.errors import UserError
from alphamed_jax.model.config import ModelConfig, RopeScaling
from alphamed_jax.model.families import FAMILIES
from alphamed_jax.model.families.family import Family

Json = dict[str, Any]

CONFIG, GENERATION = "config.json", "generation_config.json"
SINGLE, INDEX, NUMBERED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
)
COPIED_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
MODEL_FILES = (CONFIG, GENERATION, SINGLE, INDEX, NUMBERED, *COPIED_FILES)
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")

DTYPES = ("float32", "bfloat16", "float16")
# What a file may leave out, as the configuration classes of transformers fill it in.
DEFAULT_EPS, DEFAULT_THETA = 1e-6, 10000.0


def local(folder_or_hub_id: str | Path) -> Path | None:
    """The folder of a model that is on this machine already; None: it is a hub id.

    `quickstart` is the model that ships with the package.

    Raises:
      UserError: what looks like a folder is none.
    """
    name = str(folder_or_hub_id)
    if name == "quickstart":
        return embedded.MODEL
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"{name}: is a file; expected a Hugging Face model folder or a hub id.")
    if folder.is_absolute() or name.startswith((".", "~")) or len(folder.parts) > 2:
        raise UserError(f"{name}: folder not found; expected a Hugging Face folder or a hub id.")
    return None


def locate(folder_or_hub_id: str | Path, revision: str | None = None) -> Path:
    """The local folder of a model, downloaded from the hub where it is not a folder already.

    HF_HUB_OFFLINE and the login and cache of huggingface_hub are respected. Pickle files are never
    downloaded.

    Args:
      folder_or_hub_id: see `local`.
      revision: branch, tag or commit of a hub id; None: the newest.

    Raises:
      UserError: no such folder, and the hub is unreachable or does not have it.
    """
    if (folder := local(folder_or_hub_id)) is not None:
        return folder
    import huggingface_hub

    name, patterns = str(folder_or_hub_id), [*map(str, MODEL_FILES)]
    with _of_the_hub(name, revision):
        found = huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=patterns)
        return Path(found)


def commit_of(hub_id: str, revision: str | None) -> str | None:
    """The commit that a branch, a tag or the newest stands for now, by the hub or by its cache.

    Raises:
      UserError: neither has the model, or not in this revision.
    """
    import huggingface_hub

    with _of_the_hub(hub_id, revision):
        file = huggingface_hub.hf_hub_download(hub_id, CONFIG, revision=revision)
    commit = Path(file).parent.name  # the cache has a folder for each
    return commit if re.fullmatch("[0-9a-f]{40}", commit) else None


@contextlib.contextmanager
def _of_the_hub(name: str, revision: str | None) -> Iterator[None]:
    """Errors of the hub as one line."""
    try:
        yield
    except Exception as error:  # the hub client raises errors of several unrelated libraries
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        wanted = f"{name} in revision {revision}" if revision else name
        raise UserError(
            f"{wanted}: folder not found, and not available from the Hugging Face hub ({reason}). "
            "Check the spelling, the network, HF_HUB_OFFLINE and, for gated models, the login."
        ) from None


def read_json(path: Path) -> Json:
    """Read a file that holds one JSON object.

    Raises:
      UserError: the file is missing or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: not found. Expected a Hugging Face model folder with config.json, "
            "*.safetensors and tokenizer files."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}). Download it again.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(content).__name__}.")
    return content


def read_config(folder: Path) -> ModelConfig:
    """Read config.json in the spelling of transformers 4.x or 5.x.

    Raises:
      UserError: no config.json, a network of no known family, or a setting of it that is not
        implemented; it is named.
    """
    path = folder / "config.json"
    content = read_json(path)
    family = _family(content, path)
    _refuse_unsupported(content, family, path)
    hidden = _count(content, "hidden_size", path)
    heads = _count(content, "num_attention_heads", path)
    kv_heads = _count(content, "num_key_value_heads", path, default=heads)
    if heads % kv_heads:
        raise UserError(
            f"{path}: num_attention_heads ({heads}) is not a multiple of num_key_value_heads "
            f"({kv_heads})."
        )
    if (content.get("head_dim") or family.default_head_dim) is None and hidden % heads:
        raise UserError(
            f"{path}: hidden_size ({hidden}) is not a multiple of num_attention_heads ({heads}) "
            "and head_dim is not given."
        )
    head_dim = _count(content, "head_dim", path, default=family.default_head_dim or hidden // heads)
    if head_dim % 2:
        raise UserError(f"{path}: head_dim ({head_dim}) must be even for rotary embeddings.")
    theta, scaling = _rope(content, path)
    return ModelConfig(
        vocab_size=_count(content, "vocab_size", path),
        hidden_size=hidden,
        intermediate_size=_count(content, "intermediate_size", path),
        num_layers=_count(content, "num_hidden_layers", path),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        rms_norm_eps=_number(content, "rms_norm_eps", path, default=DEFAULT_EPS),
        rope_theta=theta,
        rope_scaling=scaling,
        tie_embeddings=bool(content.get("tie_word_embeddings", False)),
        family=family.model_type,
        max_position_embeddings=_count(
            content, "max_position_embeddings", path, default=family.default_context
        ),
        dtype=_dtype(content, path),
    )


def to_json(config: ModelConfig, dtype: str, token_ids: Json) -> Json:
    """The config.json of a network, in the spelling that transformers 4.x and 5.x both read.

    `token_ids` holds bos, eos and pad ids; the network itself does not know them.
    """
    family = FAMILIES[config.family]
    content: Json = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_embeddings,
        "max_position_embeddings": config.max_position_embeddings,
        "torch_dtype": dtype,
        **token_ids,
        **family.written,
    }
    if (scaling := config.rope_scaling) is not None:
        content["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_position_embeddings,
        }
    return content


def _family(content: Json, path: Path) -> Family:
    """The family that config.json names; never guessed from weights or settings."""
    named = content.get("model_type")
    if not isinstance(named, str) or named not in FAMILIES:
        *others, last = FAMILIES
        raise UserError(
            f"{path}: model_type {named!r} is not supported; expected "
            f"{', '.join(others)} or {last}."
        )
    family, architectures = FAMILIES[named], _names(content, "architectures", path)
    if any(name != family.architecture for name in architectures):
        raise UserError(
            f"{path}: architectures {architectures!r} is not supported with model_type "
            f"{named!r}; expected {family.architecture}."
        )
    return family


def _refuse_unsupported(content: Json, family: Family, path: Path) -> None:
    """Refuse settings under which the same weights would compute something else."""
    for key in (*family.refused, "quantization_config"):
        if content.get(key):
            advice = "Use the unquantised model." if key == "quantization_config" else ""
            raise UserError(f"{path}: {key} is set, which is not supported. {advice}".rstrip())
    kinds = {*_names(content, "layer_types", path)} - {"full_attention"}
    if kinds:
        raise UserError(
            f"{path}: layer_types {', '.join(sorted(kinds))} is not supported; "
            "expected full_attention."
        )
    activation = content.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise UserError(f"{path}: hidden_act {activation!r} is not supported; expected 'silu'.")


def _rope(content: Json, path: Path) -> tuple[float, RopeScaling | None]:
    """Base and scaling of the rotary embedding, from `rope_scaling` or `rope_parameters`."""
    key = "rope_scaling" if content.get("rope_scaling") else "rope_parameters"
    block = content.get(key) or {}
    if not isinstance(block, dict):
        raise UserError(f"{path}: {key} must be an object, found {block!r}.")
    theta_from = block if block.get("rope_theta") is not None else content
    theta = _number(theta_from, "rope_theta", path, default=DEFAULT_THETA)
    partial = block.get("partial_rotary_factor", content.get("partial_rotary_factor", 1.0))
    if partial not in (None, 1):
        raise UserError(f"{path}: partial_rotary_factor {partial!r} is not supported; expected 1.")
    kind = block.get("rope_type", block.get("type", "default"))
    if kind in ("default", None):
        return theta, None
    if kind != "llama3":
        raise UserError(
            f"{path}: {key} of type {kind!r} is not supported; expected 'default' or 'llama3'."
        )
    where = f"{path}: {key}"
    scaling = RopeScaling(
        factor=_number(block, "factor", where),
        low_freq_factor=_number(block, "low_freq_factor", where),
        high_freq_factor=_number(block, "high_freq_factor", where),
        original_max_position_embeddings=_count(block, "original_max_position_embeddings", where),
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise UserError(f"{where}: high_freq_factor must be greater than low_freq_factor.")
    return theta, scaling


def _dtype(content: Json, path: Path) -> str:
    """Precision of the weights: `dtype` in transformers 5.x, `torch_dtype` before."""
    name = str(content.get("dtype") or content.get("torch_dtype") or "float32")
    name = name.removeprefix("torch.")
    if name not in DTYPES:
        raise UserError(f"{path}: dtype {name!r} is not supported; expected {', '.join(DTYPES)}.")
    return name


def _names(content: Json, key: str, path: Path) -> list[str]:
    """A list of names, empty where there is none."""
    value = content.get(key)
    value = [] if value is None else value
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise UserError(f"{path}: {key} must be a list of names, found {value!r}.")
    return value


def _count(content: Json, key: str, where: Path | str, default: int | None = None) -> int:
    value = content.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{where}: {key} must be a positive whole number, found {value!r}.")
    return value


def _number(content: Json, key: str, where: Path | str, default: float | None = None) -> float:
    value = content.get(key)
    value = default if value is None else value
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise UserError(f"{where}: {key} must be a positive number, found {value!r}.")
    return float(value)


def some(items: list[str], separator: str = ", ", limit: int = 5) -> str:
    """Join the first `limit` items and say how many more there are."""
    rest = len(items) - limit
    return separator.join(items[:limit]) + (f"{separator}and {rest} more" if rest > 0 else "")
