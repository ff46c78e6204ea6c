"""What config.json says of a network, whatever its family."""

from dataclasses import dataclass
from typing import Any

Params = dict[str, Any]
"""Weights as training holds them: a tree of arrays, described in `network`."""


@dataclass(frozen=True)
class RopeScaling:
    """The `llama3` frequency scaling of Llama 3.1 and later."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class ModelConfig:
    """The network; `hf.read_config` reads it."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    tie_embeddings: bool = False
    family: str = "llama"
    """Name in `families.FAMILIES`."""
    max_position_embeddings: int = 4096
    dtype: str = "float32"
    """Precision of the stored weights, kept for export."""
