"""Checkpoints in a bucket: the libraries that a pod uses, against a bucket of our own."""

import json
import os
import subprocess
import sys
import time

import pytest
from fake_bucket import Bucket, serving

from alphamed_jax.errors import UserError
from alphamed_jax.output import storage

pytest.importorskip("gcsfs", reason="checkpoints in a bucket need gcsfs: pip install -e '.[gcs]'")

URL = "gs://some-bucket/runs/one"

# In a process of its own: the libraries look at the environment once.
ROUND_TRIP = """
import json, os
os.environ["JAX_PLATFORMS"] = "cpu"
import jax, jax.numpy as jnp
from alphamed_jax.output.checkpoint import Checkpoints
state = {"w": jnp.arange(12.0).reshape(3, 4), "count": jnp.int32(7)}
with Checkpoints("gs://some-bucket/runs/one") as saved:
    before = saved.latest()
    for step in (2, 4, 6):
        state["count"] += 1
        saved.save(step, state, {"step": step, "logs": {"metrics.jsonl": "{}"}})
with Checkpoints("gs://some-bucket/runs/one") as saved:
    step = saved.latest()
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    found = jax.tree.map(lambda x: x.tolist(), saved.restore(step, abstract))
    print(json.dumps([before, step, saved.complete(), saved.record(step), found]))
"""


def test_checkpoints_go_to_a_bucket_and_come_back():
    # Given an empty bucket, when a process writes three checkpoints and opens them anew,
    bucket = Bucket("some-bucket")
    with serving(bucket) as environment:
        done = subprocess.run(
            [sys.executable, "-c", ROUND_TRIP],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
    assert done.returncode == 0, done.stderr
    # then the last one is as it was saved,
    before, latest, complete, record, state = json.loads(done.stdout.splitlines()[-1])
    assert (before, latest, complete) == (None, 6, 6)
    assert record == {"step": 6, "logs": {"metrics.jsonl": "{}"}}
    assert state == {"count": 10, "w": [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]}
    # the first one was removed, and nothing else lies in the bucket.
    steps = {name.split("/")[2] for name in bucket.objects}
    assert steps == {"4", "6"}
    assert "runs/one/6/commit_success.txt" in bucket.objects


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "credentials of this machine may not write there; on a TPU VM its service account"),
        (403, "credentials of this machine may not write there; on a TPU VM its service account"),
        (404, "there is no bucket 'some-bucket'"),
        (503, "the bucket does not answer"),
    ],
)
def test_a_bucket_that_refuses_is_one_line(monkeypatch, status, message):
    with serving(Bucket("some-bucket", status)) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        began = time.monotonic()
        with pytest.raises(UserError, match=message) as caught:
            storage.check(URL)
    assert str(caught.value).startswith(URL)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 20


def test_a_bucket_that_can_be_written_to_is_left_as_it_was(monkeypatch):
    bucket = Bucket("some-bucket")
    with serving(bucket) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        storage.check(URL)
    assert bucket.calls[0].startswith("POST /upload")
    assert bucket.objects == {}


def test_without_credentials_it_says_how_to_get_them_before_any_request(monkeypatch):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "nowhere.json")
    with pytest.raises(UserError, match=r"no Google credentials \(File nowhere.json") as caught:
        storage.check(URL)
    assert str(caught.value).endswith("elsewhere run: gcloud auth application-default login.")


def test_without_gcsfs_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(storage.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"need gcsfs.*pip install -e '.\[gcs\]'"):
        storage.check(URL)


def test_a_name_that_no_bucket_has(monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="'NO_BUCKET!' can't be the name of a bucket"):
        storage.check("gs://NO_BUCKET!/run")
