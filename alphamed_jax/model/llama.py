"""The documented entry point of the network, for tools that compare logits."""

from alphamed_jax.model.network import logits

__all__ = ["logits"]
