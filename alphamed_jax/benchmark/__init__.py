"""What `python -m alphamed_jax.bench` measures: the work, its closed form, the machine's rates."""
