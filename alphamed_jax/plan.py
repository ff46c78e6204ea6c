"""`python -m alphamed_jax.plan`: will it fit, and how long will it take, before renting a pod.

    python -m alphamed_jax.plan --config configs/alphamed_8b.yaml --mesh 8x8 --topology v5e:8x8
    python -m alphamed_jax.plan --model meta-llama/Llama-3.2-3B-Instruct --topology h100:8
    python -m alphamed_jax.plan --config configs/alphamed_8b.yaml --topology v5p:4x4x4 --scaling
    python -m alphamed_jax.plan --config configs/alphamed_8b.yaml --topology h100:1 --lora.rank 16
    python -m alphamed_jax.plan --suggest v5e:2x4

The programs of training (weights for decoding, prefill, decode, reward, update) are compiled for
the named TPUs on this machine, which needs neither a TPU nor the memory, but libtpu:
pip install -e '.[plan]'. Other devices are estimated from shapes. Every setting of training is a
flag here too, so that one can be tried. No weights are read, only the model's shape.

Printed per chip: the memory of each phase against the chip's, its FLOPs, memory traffic and
communication with a roofline time, a step and an epoch for expected lengths; and, where it does
not fit, which settings would, verified by compiling them. --suggest asks the other way round: what
can be trained on these devices, and with which settings. Progress goes to stderr.
"""

import json
import time
from typing import Any

from alphamed_jax import cli
from alphamed_jax.config import Config
from alphamed_jax.planning import flags, offers, result, scaling
from alphamed_jax.planning.devices import devices_for
from alphamed_jax.planning.shape import model_shape
from alphamed_jax.rl.policy import with_adapter
from alphamed_jax.runtime import platforms
from alphamed_jax.runtime.streams import say

Found = tuple[dict[str, Any], bool]
"""What --json prints, and whether it fits."""


def plan(settings: tuple[flags.PlanFlags, Config]) -> int:
    """Measure and print; the exit status is 1 where it does not fit and --check was given."""
    began = time.perf_counter()
    given, config = settings
    # Nothing runs on devices; touching those that are here could take them from a training.
    platforms.prepare("cpu")
    if given.suggest:
        found, fits = _suggest(given, config)
    else:
        found, fits = _planned(given, config)
    say(f"{time.perf_counter() - began:.0f} s in all")
    if given.json:
        print(json.dumps(found))
    return 1 if given.check and not fits else 0


def _suggest(given: flags.PlanFlags, config: Config) -> Found:
    made = list(offers.offers(given, config))
    print(offers.as_text(made, given))
    return offers.as_json(made, given), any(offer.fits for offer in made)


def _planned(given: flags.PlanFlags, config: Config) -> Found:
    model = model_shape(config.model)
    config = with_adapter(config, model)
    devices = devices_for(given.topology, config.mesh, given)
    if given.scaling:
        sizes = scaling.scale(given, config, model, devices)
        print(scaling.scaling_text(sizes, config))
        return scaling.as_json(sizes), all(size.fits for size in sizes)
    made = result.make_plan(given, config, model, devices)
    print(result.as_text(made))
    return result.as_json(made), made.fits


def main() -> None:
    cli.run("plan", plan, flags.parse, __doc__)


if __name__ == "__main__":
    main()
