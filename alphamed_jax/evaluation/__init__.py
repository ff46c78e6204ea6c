"""Evaluation: benchmarks, responses, how they are scored, and what is said of them."""
