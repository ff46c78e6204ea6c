"""What tests find in the environment: the devices that JAX has, no network, none of the user's."""

from collections.abc import MutableMapping
from importlib.metadata import version

FLAGS = {
    "cpu": " --xla_force_host_platform_device_count=8"
    # Eight devices on two busy cores may wait long for each other.
    " --xla_cpu_collective_call_terminate_timeout_seconds=600"
    # Tests compile much and compute little.
    " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    "cuda": " --xla_gpu_autotune_level=0",
}


def settle(environment: MutableMapping[str, str]) -> None:
    """Before JAX is imported. ALPHAMED_TESTS_ON names the platform, cpu if it is not set."""
    on = environment.get("ALPHAMED_TESTS_ON", "cpu")
    if on not in FLAGS:
        raise ValueError(f"ALPHAMED_TESTS_ON is {on!r}: expected cpu or cuda")
    environment["JAX_PLATFORMS"] = "cpu" if on == "cpu" else f"{on},cpu"
    environment["HF_HUB_OFFLINE"] = "1"
    environment["TOKENIZERS_PARALLELISM"] = "false"
    flags = FLAGS[on]
    if on == "cpu" and tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
        # Newer ones no longer know it, and XLA ends the process at a flag that it does not know.
        flags += " --xla_cpu_use_fusion_emitters=false"
    environment["XLA_FLAGS"] = environment.get("XLA_FLAGS", "") + flags
    if on == "cuda":
        # Several processes of tests share its memory.
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
