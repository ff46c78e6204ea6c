"""Which launches are joint ones, told from an environment and a VM's metadata."""

import http.server
import threading

import pytest

from alphamed_jax.runtime import cluster, platforms

SRUN = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-4]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}


@pytest.mark.parametrize(
    ("environment", "joint"),
    [
        (SRUN, True),
        (SRUN | {"SLURM_NTASKS": "1"}, False),
        # sbatch without srun: one process of a job that has room for four
        ({k: v for k, v in SRUN.items() if k != "SLURM_STEP_NODELIST"}, False),
        ({}, False),
    ],
)
def test_slurm_counts_where_srun_started_several(environment, joint):
    assert cluster.by_slurm(environment) == joint


ONE_HOST = {"worker-network-endpoints": "t1v-n-0:8470:10.0.0.2", "agent-worker-number": "0"}
POD = {"worker-network-endpoints": "a:8470:10.0.0.2,b:8470:10.0.0.3", "agent-worker-number": "1"}
SLICES = ONE_HOST | {"tpu-env": "ACCELERATOR_TYPE: 'v5litepod-8'\nMEGASCALE_NUM_SLICES: '2'\n"}


@pytest.mark.parametrize(
    ("environment", "metadata", "joint"),
    [
        # A VM reached by ssh has nothing in its environment.
        ({}, POD, True),
        ({}, ONE_HOST, False),
        ({}, SLICES, True),
        ({}, ONE_HOST | {"tpu-env": "MEGASCALE_NUM_SLICES: '1'\n"}, False),
        # Kaggle and the like: TPUs without a metadata server.
        ({}, {}, False),
        # Kubernetes tells in the environment, and turns the metadata off.
        ({"TPU_WORKER_HOSTNAMES": "a.job,b.job", "TPU_SKIP_MDS_QUERY": "true"}, {}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_SKIP_MDS_QUERY": "true"}, POD, False),
        ({"TPU_PROCESS_ADDRESSES": "a:1,b:1", "TPU_SKIP_MDS_QUERY": "1"}, {}, True),
        ({"MEGASCALE_NUM_SLICES": "2", "TPU_WORKER_HOSTNAMES": "a"}, {}, True),
        ({"MEGASCALE_NUM_SLICES": "1", "TPU_WORKER_HOSTNAMES": "a"}, {}, False),
        # What libtpu leaves there on a machine without TPUs.
        ({"TPU_WORKER_HOSTNAMES": "WARNING: no TPU, none"}, {}, False),
    ],
)
def test_tpu_pods_tell_in_the_environment_or_the_metadata(environment, metadata, joint):
    assert cluster.by_tpu_pod(environment, metadata.get) == joint


def test_the_metadata_server_is_asked_only_where_tpus_are_used(monkeypatch, tmp_path):
    # Given a machine with the devices of a TPU and libtpu,
    groups = tmp_path / "dev" / "vfio"
    groups.mkdir(parents=True)
    monkeypatch.setattr(platforms, "ROOT", tmp_path)
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: object())
    assert not cluster.has_tpu({})
    (groups / "0").touch()
    assert cluster.has_tpu({})
    assert cluster.has_tpu({"JAX_PLATFORMS": "tpu,cpu"})
    # then neither another platform nor a missing libtpu makes it one that uses them.
    assert not cluster.has_tpu({"JAX_PLATFORMS": "cpu"})
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    assert not cluster.has_tpu({})
    assert cluster.has_tpu({"TPU_LIBRARY_PATH": "/lib/libtpu.so"})


def test_without_a_tpu_nothing_is_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(platforms, "ROOT", tmp_path)
    monkeypatch.setattr(cluster, "metadata", lambda *_: pytest.fail("asked the metadata server"))
    monkeypatch.setattr(cluster.os, "environ", {"TPU_WORKER_HOSTNAMES": "a,b"})
    assert not cluster.launched_together()


def test_an_attribute_comes_from_the_metadata_server():
    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.path == "/computeMetadata/v1/instance/attributes/tpu-env"
            self.send_response(200 if known and self.headers["Metadata-Flavor"] else 404)
            self.end_headers()
            if known:
                self.wfile.write(b"WORKER_ID: '3'\n")

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = {"GCE_METADATA_IP": f"127.0.0.1:{server.server_port}"}
        assert cluster.metadata(here, "tpu-env") == "WORKER_ID: '3'\n"
        assert cluster.metadata(here, "nothing") is None
        server.shutdown()
    # Nobody listens there any more.
    assert cluster.metadata(here, "tpu-env", seconds=1.0) is None
