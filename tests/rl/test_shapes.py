"""Shapes over a long run: few, and all known early, since each new one is a program to compile."""

import numpy as np
import pytest

from alphamed_jax.rl.batch import plan_batch
from alphamed_jax.rl.buckets import bucket

STEPS, GROUP = 300, 8


def batches(prompts, longest, median, longest_prompt, effective, seed=0):
    """Prompt lengths, lengths and advantages of each step: long-tailed, as in `bench`."""
    rng = np.random.default_rng(seed)
    for _ in range(STEPS):
        spread = 0.5 * rng.normal(size=(prompts, 1)) + 0.6245 * rng.normal(size=(prompts, GROUP))
        lengths = np.clip(median * np.exp(spread), 1, longest).astype(int)
        advantages = np.zeros((prompts, GROUP), np.float32)
        chosen = rng.permutation(prompts)[: max(1, rng.binomial(prompts, effective))]
        advantages[chosen] = 1.0
        yield rng.integers(longest_prompt // 4, longest_prompt + 1, prompts), lengths, advantages


# The shape of `bench --workload realistic`, and steps of the 8B configuration whose responses are
# of middling length, mostly cut, or of a few words.
@pytest.mark.parametrize(
    ("prompts", "longest", "median", "longest_prompt", "effective", "micro_batch", "rows"),
    [
        (32, 192, 32, 96, 0.3, 16, 1),
        (32, 192, 96, 96, 0.3, 16, 1),
        (64, 1024, 256, 768, 0.5, 64, 8),
        (64, 1024, 700, 768, 0.3, 64, 8),
        (64, 1024, 85, 768, 0.5, 64, 8),
        (64, 1024, 256, 768, 0.4, 16, 8),
    ],
)
def test_three_hundred_steps_need_at_most_three_update_programs_known_within_twenty(
    prompts, longest, median, longest_prompt, effective, micro_batch, rows
):
    first_seen, computed, needed = {}, 0, 0
    steps = batches(prompts, longest, median, longest_prompt, effective)
    for step, (prompt_lengths, lengths, advantages) in enumerate(steps):
        planned = plan_batch(
            prompt_lengths,
            lengths,
            advantages,
            micro_batch=micro_batch,
            data_shards=rows,
            only_effective=True,
            longest=longest,
            prompt_width=bucket(longest_prompt),
        )
        shape = (
            planned.prompts.shape,
            planned.responses.shape,
            planned.rows,
            planned.width,
            planned.prompt_width,
            planned.packed,
        )
        first_seen.setdefault(shape, step)
        units = planned.count * planned.prompts.shape[1]
        computed += units * (planned.prompt_width + planned.rows * planned.width)
        chosen = advantages.any(axis=1)
        needed += prompt_lengths[chosen].sum() + lengths[chosen].sum()
    assert len(first_seen) <= 3, first_seen
    assert max(first_seen.values()) <= 20, first_seen
    # Padding has its bound, too.
    assert computed < 4 * needed
