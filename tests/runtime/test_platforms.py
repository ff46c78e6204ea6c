"""Devices: what is here is used or the start is refused; the CPU is a choice, never a fall-back."""

import logging
import subprocess
import sys

import pytest

from alphamed_jax.errors import UserError
from alphamed_jax.runtime import platforms


def machine(root, *files, vendor=None):
    """A machine with these device files, and one PCI device of a vendor."""
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if vendor:
        path = root / "sys/bus/pci/devices/0000:00:05.0/vendor"
        path.parent.mkdir(parents=True)
        path.write_text(vendor + "\n")
    return root


@pytest.fixture
def nothing_asked(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(platforms, "misfits", list)
    monkeypatch.setattr(platforms, "_plugins", list)


@pytest.mark.parametrize(
    ("files", "vendor", "found"),
    [
        ((), None, {}),
        (("dev/null", "dev/dri/renderD128", "dev/kfd", "dev/dxg"), "0x8086", {}),
        (("dev/nvidia0",), None, {"cuda": "/dev/nvidia0"}),
        (("dev/nvidia3", "dev/nvidiactl"), None, {"cuda": "/dev/nvidia3"}),
        (("dev/nvidiactl",), None, {"cuda": "/dev/nvidiactl"}),
        (
            ("dev/dxg", "usr/lib/wsl/lib/libcuda.so.1"),
            None,
            {"cuda": "/usr/lib/wsl/lib/libcuda.so.1"},
        ),
        (("dev/accel0", "dev/accel1"), None, {"tpu": "/dev/accel0"}),
        # an Intel NPU is of the same subsystem, one folder further down
        (("dev/accel/accel0",), None, {}),
        (("dev/vfio/0", "dev/vfio/vfio"), "0x1ae0", {"tpu": "/dev/vfio/0"}),
        (("dev/vfio/0",), None, {"tpu": "/dev/vfio/0"}),
        # a host that hands a graphics card to a virtual machine
        (("dev/vfio/17", "dev/vfio/vfio"), "0x10de", {}),
        (("dev/vfio/vfio",), None, {}),
    ],
)
def test_accelerators_are_told_by_their_device_files(tmp_path, files, vendor, found):
    assert platforms.accelerators(machine(tmp_path, *files, vendor=vendor)) == found


@pytest.mark.parametrize("file", ["dev/nvidia0", "dev/accel0", "dev/vfio/0"])
def test_a_cpu_beside_an_accelerator_is_refused(tmp_path, nothing_asked, file):
    with pytest.raises(UserError) as refused:
        platforms.open_devices(machine(tmp_path, file))
    assert f"(/{file}), but JAX cannot use it: " in str(refused.value)
    assert "JAX_PLATFORMS=cpu" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_cpu_that_was_asked_for_or_is_all_there_is_is_used(tmp_path, nothing_asked, monkeypatch):
    assert platforms.open_devices(tmp_path) == "cpu"
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert platforms.open_devices(machine(tmp_path, "dev/nvidia0", "dev/accel0")) == "cpu"


def test_the_reason_is_jax_s_own(tmp_path, nothing_asked, monkeypatch, capfd):
    def devices():
        logger = logging.getLogger("jax._src.xla_bridge")
        logger.warning("Exception when calling %s: CUDA_ERROR_NO_DEVICE", "xla_cuda13 plugin")
        return [type("Device", (), {"platform": "cpu"})]

    monkeypatch.setattr(platforms.jax, "devices", devices)
    with pytest.raises(UserError, match=r"cannot use it: Exception when .*_NO_DEVICE\. Mend"):
        platforms.open_devices(machine(tmp_path, "dev/nvidia0"))
    # it is said once,
    assert capfd.readouterr().err == ""
    # and where there is no GPU a plugin that finds none is no fault.
    assert platforms.open_devices(tmp_path / "elsewhere") == "cpu"


def test_a_busy_tpu_is_one_line_without_the_advice_to_fall_back(
    tmp_path, nothing_asked, monkeypatch
):
    def devices():
        raise RuntimeError(
            "Unable to initialize backend 'tpu': ABORTED: The TPU is already in use by process "
            "with pid 7. (set JAX_PLATFORMS='' to automatically choose an available backend)"
        )

    monkeypatch.setattr(platforms.jax, "devices", devices)
    with pytest.raises(UserError) as refused:
        platforms.open_devices(machine(tmp_path, "dev/accel0"))
    assert "already in use by process with pid 7. Mend that" in str(refused.value)
    assert "JAX_PLATFORMS=''" not in str(refused.value)


def test_a_plugin_that_does_not_match_jaxlib_is_refused_and_named(
    tmp_path, nothing_asked, monkeypatch
):
    monkeypatch.undo()
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    installed = tmp_path / "jax_cuda13_plugin-0.1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Name: jax-cuda13-plugin\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"jax-cuda13-plugin 0\.1\.0 does not go with jaxlib"):
        platforms.open_devices(tmp_path)


@pytest.mark.parametrize(
    ("files", "plugins", "asked", "chosen"),
    [
        # libtpu alone would make JAX look for TPUs
        ((), (), "", "cpu"),
        ((), ("jax_plugins.xla_cuda13",), "", "cpu"),
        (("dev/accel0",), (), "", None),
        (("dev/nvidia0",), ("xla_cuda13",), "", "cuda,cpu"),
        (("dev/nvidia0",), (), "", "cpu"),
        ((), ("some_other",), "", None),
        ((), (), "tpu", None),
        (("dev/nvidia0",), ("xla_cuda13",), "cpu", None),
    ],
)
def test_the_platform_is_chosen_before_jax_looks(
    tmp_path, monkeypatch, files, plugins, asked, chosen
):
    monkeypatch.setattr(platforms, "_plugins", lambda: list(plugins))
    monkeypatch.setattr(platforms, "misfits", list)
    assert platforms.choose({"JAX_PLATFORMS": asked}, machine(tmp_path, *files)) == chosen


@pytest.mark.parametrize("name", ["nonsense", "cuda", "cuda,cpu"])
def test_a_platform_that_is_not_here_is_one_line(tmp_path, name):
    program = (
        "from alphamed_jax.runtime import platforms\n"
        "from alphamed_jax import cli\n"
        "cli.run('test', lambda _: print(platforms.open_devices()), lambda *_: None, '')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"JAX_PLATFORMS": name},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert f"error: JAX_PLATFORMS is {name!r}, but JAX cannot use" in done.stderr
