"""The output folder of a run: its files, its checkpoints, and what makes them one run."""
