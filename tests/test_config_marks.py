"""Which settings may change on resume, and which may differ between processes."""

from alphamed_jax.config import Config
from alphamed_jax.config_marks import Mark, settings_without

# A new setting belongs into one of these: decide, mark it in `config`, and write it down here.
PART_OF_THE_RUN = """
    steps seed model_revision data_revisions eval.questions
    prompt.style prompt.system prompt.question_format prompt.option_format prompt.instruction
    prompt.max_tokens prompt.shuffle_options allow_test_data data_weights
    curriculum.pools curriculum.hard curriculum.normal curriculum.easy curriculum.unseen
    curriculum.hard_below curriculum.easy_above curriculum.newest
    reward.overlong_cache reward.skip_truncated reward.length_penalty
    rollout.prompts rollout.group_size rollout.max_new_tokens rollout.temperature rollout.top_p
    rollout.top_k rollout.max_rounds rollout.weights_dtype rollout.cache_dtype
    loss.advantage loss.variant loss.clip_low loss.clip_high loss.dual_clip loss.ratio
    loss.aggregation loss.constant_length loss.kl_coef loss.kl_estimator loss.tis_cap
    optimizer.learning_rate optimizer.schedule optimizer.warmup_updates optimizer.b1 optimizer.b2
    optimizer.eps optimizer.weight_decay optimizer.max_grad_norm optimizer.moments
    update.mini_batches update.epochs update.skip_constant_groups update.compute_dtype
    lora.rank lora.alpha lora.targets lora.learning_rate_factor
"""
OF_ITS_PROCESSES = "model adapter data checkpoints"
MAY_CHANGE_ON_RESUME = """
    mesh checkpoint_every export
    rollout.weights rollout.slots
    update.mesh update.micro_batch update.remat update.logits_chunk update.attention
    eval.samples eval.every eval.benchmarks eval.limit eval.best eval.patience
    log.samples log.table_every
"""
OF_A_START = "eval.data config output coordinator num_processes process_id compilation_cache"


def test_every_setting_says_whether_it_may_change_on_resume_and_between_processes():
    everything = set(settings_without(Config(), None))
    on_resume = everything - set(settings_without(Config(), Mark.MAY_CHANGE_ON_RESUME))
    in_process = everything - set(settings_without(Config(), Mark.MAY_DIFFER))

    assert on_resume - in_process == set(MAY_CHANGE_ON_RESUME.split())
    assert in_process - on_resume == set(OF_ITS_PROCESSES.split())
    assert on_resume & in_process == set(OF_A_START.split())
    assert everything - on_resume - in_process == set(PART_OF_THE_RUN.split())
