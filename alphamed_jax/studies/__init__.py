"""Experiments whose result stands in docs/: conditions by seeds, each a run of the commands."""
