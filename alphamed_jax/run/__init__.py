"""What surrounds training: the output folder, the terminal, checkpoints and processes."""
