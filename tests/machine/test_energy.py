"""Energy by a made-up powercap tree: wrap-around, permissions, short windows; unknown is never 0."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rnnbench.machine.energy import EnergyUnknown, GpuEnergy, Rapl, Window, meter_of
from rnnbench.machine.gpu import Gpu
from rnnbench.records.record import Energy
from tests.machine.fake_gpu import FakeNvml, NVMLError

RANGE = 262_143_328_850


def zone(root: Path, folder: str, name: str, energy: int = 0) -> Path:
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{energy}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE}\n")
    return path / "energy_uj"


@pytest.fixture
def tree(tmp_path):
    """Two packages, the memory and cores of one, and what would be counted twice."""
    files = {
        "package": zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000),
        "second": zone(tmp_path, "intel-rapl:1", "package-1", RANGE - 500_000),
        "dram": zone(tmp_path, "intel-rapl:0:1", "dram", 7),
    }
    for folder, name in (
        ("intel-rapl:0:0", "core"),
        ("intel-rapl:2", "psys"),
        ("intel-rapl-mmio:0", "package-0"),
    ):
        zone(tmp_path, folder, name, 5)
    (tmp_path / "intel-rapl").mkdir()
    return tmp_path, files


def spent(files, **joules):
    for name, value in joules.items():
        now = int(files[name].read_text()) + round(1e6 * value)
        files[name].write_text(f"{now % RANGE}\n")


def window(meter, seconds, meanwhile=lambda: None) -> Window:
    times = iter((10.0, 10.0 + seconds))
    with Window(meter, lambda: next(times)) as opened:
        meanwhile()
    return opened


def test_packages_and_their_memory_add_up_over_the_end_of_the_counter(tree):
    root, files = tree
    meter = Rapl(root)
    assert meter.source == "rapl package-0 + dram-0 + package-1"
    found = window(meter, 0.5, lambda: spent(files, package=3.0, second=2.0, dram=0.25)).energy([240_000_000] * 2)
    assert int(files["second"].read_text()) < 2_000_000  # it went back to 0
    assert found.joules == pytest.approx(5.25, abs=1e-5)
    assert found.seconds == pytest.approx(0.5)
    assert found.source == meter.source
    assert found.reason is None


@pytest.mark.parametrize(
    ("seconds", "samples", "words"),
    [
        (0.05, [50_000_000], "a window of 50 ms is shorter than 100 updates of the counter, 100 ms"),
        (0.5, [200_000_000], "calls fill 40 % of the window, less than 90 %"),
        (400.0, [399_000_000_000], "may have gone back to 0 more than once in 400 s, longer than 262 s"),
    ],
)
def test_windows_that_tell_nothing_are_refused(tree, seconds, samples, words):
    root, files = tree
    found = window(Rapl(root), seconds, lambda: spent(files, package=3.0)).energy(samples)
    assert found.joules is None
    assert words in found.reason


def test_a_counter_that_stands_still_is_unknown_and_not_0(tree):
    found = window(Rapl(tree[0]), 0.5).energy([500_000_000])
    assert found.joules is None
    assert "stood still" in found.reason


def test_where_there_is_no_counter_the_reason_says_so(tmp_path):
    reason = meter_of(lambda: Rapl(tmp_path))
    assert "has no intel-rapl package" in reason
    assert window(reason, 1.0).energy([1]) == Energy(reason=reason)


def test_a_counter_that_may_not_be_read_names_the_remedy(tree, monkeypatch):
    root, files = tree
    if os.geteuid() == 0:  # may read everything
        real = Path.read_text

        def refused(path, *arguments, **named):
            if path == files["package"]:
                raise PermissionError(13, "Permission denied")
            return real(path, *arguments, **named)

        monkeypatch.setattr(Path, "read_text", refused)
    else:
        files["package"].chmod(0)
    with pytest.raises(EnergyUnknown, match=r"package|energy_uj may not be read; allow it: sudo chmod a\+r"):
        Rapl(root)


def test_a_counter_that_disappears_meanwhile_costs_the_energy_alone(tree):
    root, files = tree
    found = window(Rapl(root), 0.5, files["package"].unlink).energy([500_000_000])
    assert found.joules is None
    assert "cannot be read" in found.reason


def gpu_that_counts(*millijoules):
    answers = iter(millijoules)
    nvml = FakeNvml(nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(answers))
    return Gpu(nvml, "gpu 0")


def test_a_gpu_counts_by_itself():
    found = window(GpuEnergy(gpu_that_counts(5, 1_000, 251_000)), 20.0).energy([20_000_000_000])
    assert found == Energy(250.0, 20.0, "nvml")


def test_a_gpu_that_does_not_tell_is_not_zero():
    found = window(GpuEnergy(gpu_that_counts(5, 1_000, 9)), 20.0).energy([20_000_000_000])
    assert found.joules is None
    assert "anew" in found.reason


@pytest.mark.parametrize("seconds", [0.06, 9.99])
def test_a_short_window_of_a_gpu_has_no_energy(seconds):
    assert window(GpuEnergy(gpu_that_counts(5, 1_000, 251_000)), seconds).energy([round(seconds * 1e9)]) is None


def test_an_older_gpu_is_refused():
    silent = Gpu(FakeNvml(nvmlDeviceGetTotalEnergyConsumption=NVMLError("not supported")), "gpu 0")
    assert "from Volta on" in meter_of(lambda: GpuEnergy(silent))
