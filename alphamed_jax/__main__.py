"""`python -m alphamed_jax`: the commands, as `alphamed` lists and starts them."""

from alphamed_jax.cli import main

if __name__ == "__main__":
    main()
