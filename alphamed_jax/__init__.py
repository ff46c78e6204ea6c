"""AlphaMed in JAX: reinforcement learning for medical reasoning from the answer key alone."""

import os
import sys

from alphamed_jax.runtime import streams

if sys.argv[:1] == ["-m"]:  # one of our commands is being started
    streams.speak_utf8()
    streams.interrupt_quietly()

# transformers is used for tokenizers alone: it need not say that PyTorch is missing.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

__version__ = "0.1.0"
