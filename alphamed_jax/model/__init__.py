"""The network, its weights and where they live. Knows nothing of rewards."""
