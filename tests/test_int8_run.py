"""A run whose rollouts decode in 8 bits: weighed tokens, and a policy judged as it is."""

import pytest
from tiny_run import rows_of, run, tiny_config, write_inputs

from alphamed_jax.config import EvalConfig, LossConfig, RolloutConfig
from alphamed_jax.rl import language_model


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.mark.slow
def test_rollouts_are_rounded_and_weighed_and_evaluation_is_neither(inputs, tmp_path, monkeypatch):
    # Given a run whose rollouts read weights and caches in 8 bits,
    made, lay_out = [], language_model.make_decode_weights

    def noted(*arguments):
        made.append(arguments[-1])
        return lay_out(*arguments)

    monkeypatch.setattr(language_model, "make_decode_weights", noted)
    sampling = {"prompts": 4, "group_size": 4, "max_new_tokens": 12}
    rounded = RolloutConfig(**sampling, weights_dtype="int8", cache_dtype="int8")
    common = {"mesh": "4x2", "steps": 1, "export": False, "eval": EvalConfig(questions=4)}
    config = tiny_config(
        inputs, tmp_path / "int8", rollout=rounded, loss=LossConfig(tis_cap=1.001), **common
    )
    # when it runs,
    run(config)
    # then they are made for its step alone, not for the evaluations before and after;
    assert made == [False, True, False]
    # sampler and trainer differ by a little, for which tokens are weighed, up to the cap.
    (row,) = rows_of(config.folder / "metrics.jsonl")
    assert 1e-5 < row["sampler_gap/mean"] < 0.05
    assert row["tis/weight"] != pytest.approx(1, abs=1e-7)
    assert row["tis/weight"] < 1.001
    assert 0 < row["tis/truncated"] < 1
