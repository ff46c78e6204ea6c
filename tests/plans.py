"""A small model planned for simulated devices, for the planner's tests."""

from helpers import TINY

from alphamed_jax.config import Config, RolloutConfig, UpdateConfig
from alphamed_jax.planning.case import case_for
from alphamed_jax.planning.devices import devices_for
from alphamed_jax.planning.flags import PlanFlags
from alphamed_jax.planning.phase import PhaseCost
from alphamed_jax.planning.roofline import Amount

GPU = "h100:8"


def config(mesh="4x2", *, update=None, **settings):
    """8 prompts x 4 responses of up to 512 tokens."""
    rollout = {"prompts": 8, "group_size": 4, "max_new_tokens": 512} | settings
    return Config(
        model="tiny",
        mesh=mesh,
        rollout=RolloutConfig(**rollout),
        update=UpdateConfig(**{"micro_batch": 16} | (update or {})),
    )


def case(of=None, topology=GPU, prompt_tokens=64):
    """Its case on eight GPUs, which are nowhere."""
    of = of or config()
    return case_for(of, TINY, devices_for(topology, of.mesh, PlanFlags()), prompt_tokens)


def cost(flops=0, traffic=0, sent=0, *, turn=(0, 0, 0), peak=0, refused=""):
    """A phase's cost of round numbers."""
    return PhaseCost(Amount(flops, traffic, sent), Amount(*turn), {}, {}, peak, refused)
