"""Questions, where they come from, how they become token ids, and the order they are seen in."""
