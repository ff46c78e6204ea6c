"""Was this process started together with others that find each other by themselves?

JAX knows the ways in which TPU pods and Slurm tell (jax._src.clusters), but asks only where it is
told that there are several processes: `jax.distributed.initialize()` alone is an error. On a VM of
a TPU pod nothing in the environment says so; the VM's metadata server does.
"""

import importlib.util
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

from alphamed_jax.runtime.platforms import accelerators

# What JAX's Slurm support reads. A batch script that does not call srun lacks the node list of a
# step: it is one process, however many tasks the job could start.
SLURM = (
    "SLURM_JOB_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
)
METADATA = "http://{host}/computeMetadata/v1/instance/attributes/{key}"


def launched_together() -> bool:
    """Whether Slurm, a TPU pod or several slices of one started several processes."""
    return by_slurm(os.environ) or (
        has_tpu(os.environ) and by_tpu_pod(os.environ, lambda key: metadata(os.environ, key))
    )


def by_slurm(environment: Mapping[str, str]) -> bool:
    """Whether `srun` started this process as one of several."""
    return all(name in environment for name in SLURM) and int(environment["SLURM_NTASKS"]) > 1


def has_tpu(environment: Mapping[str, str]) -> bool:
    """Whether JAX will use TPUs of this machine, as far as can be told before it looks."""
    asked = environment.get("JAX_PLATFORMS", "")
    if asked and "tpu" not in asked.split(","):
        return False
    if not environment.get("TPU_LIBRARY_PATH") and importlib.util.find_spec("libtpu") is None:
        return False
    return "tpu" in accelerators()


def by_tpu_pod(environment: Mapping[str, str], ask: Callable[[str], str | None]) -> bool:
    """Whether the TPUs of this machine are part of more than it holds.

    Kubernetes tells in the environment, Compute Engine in the metadata of the VM, as a line per
    variable under `tpu-env` and as a list of workers. Where the variables are set they win.

    Args:
      ask: the value of a key of the VM's metadata; None where there is none.
    """
    for name in ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"):
        hosts = environment.get(name, "")
        if "," in hosts and "WARNING" not in hosts:  # libtpu leaves a warning there without TPUs
            return True
    slices = environment.get("MEGASCALE_NUM_SLICES")
    if slices:
        return int(slices) > 1
    if "TPU_SKIP_MDS_QUERY" in environment:  # what JAX and libtpu go by, too
        return False
    if "," in (ask("worker-network-endpoints") or ""):
        return True
    for line in (ask("tpu-env") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "MEGASCALE_NUM_SLICES":
            return int(value.strip().strip("'\"") or 1) > 1
    return False


def metadata(environment: Mapping[str, str], key: str, seconds: float = 3.0) -> str | None:
    """An attribute of this VM by its metadata server; None where it, or the server, is missing."""
    host = environment.get("GCE_METADATA_IP", "metadata.google.internal")
    request = urllib.request.Request(
        METADATA.format(host=host, key=key), headers={"Metadata-Flavor": "Google"}
    )
    # No proxy leads to the metadata server of this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=seconds) as answer:
            return answer.read().decode()
    except (OSError, urllib.error.URLError):
        return None
