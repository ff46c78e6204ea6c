"""Makes what `alphamed_jax.embedded` holds, and the curve of the README."""
