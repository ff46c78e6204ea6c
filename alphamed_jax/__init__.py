"""AlphaMed in JAX: reinforcement learning for medical reasoning from the answer key alone."""

__version__ = "0.1.0"
