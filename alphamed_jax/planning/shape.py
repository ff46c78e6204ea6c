"""The shape of the model that a configuration names, without weights and mostly offline."""

from pathlib import Path

from alphamed_jax.errors import UserError, nearest
from alphamed_jax.model.config import ModelConfig
from alphamed_jax.model.hf_folder import CONFIG, locate, read_config
from alphamed_jax.model.shapes import KNOWN


def model_shape(name: str) -> ModelConfig:
    """A model's shape: a folder's config.json, a known hub id, or config.json from the hub.

    Raises:
      UserError: there is no such model, or the hub cannot be reached.
    """
    if name == "quickstart" or Path(name).expanduser().exists():
        return read_config(locate(name))
    if name in KNOWN:
        return KNOWN[name]
    if Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        return read_config(locate(name))  # says what is wrong with it
    import huggingface_hub

    try:
        file = huggingface_hub.hf_hub_download(name, CONFIG)
    except Exception as error:  # the hub client raises errors of several unrelated libraries
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"{name}: no folder, no shape known without a network, and config.json is not "
            f"available from the hub ({reason}). Known: {', '.join(KNOWN)}.{nearest(name, KNOWN)}"
        ) from None
    return read_config(Path(file).parent)
