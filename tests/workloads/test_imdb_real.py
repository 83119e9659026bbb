"""The real reviews, element for element as Keras loads and pads them, and how fast they come from the cache."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rnnbench import workloads
from rnnbench.workloads import imdb_cache, imdb_files
from rnnbench.workloads.base import Source

pytestmark = [pytest.mark.realdata, pytest.mark.slow]

# Runs alone, for Keras brings its backend with it. Writes what each workload must equal.
KERAS = """
import sys
import numpy as np
from keras.datasets import imdb
from keras.utils import pad_sequences

parts = zip(("train", "test"), imdb.load_data(num_words=10000))
for split, (x, y) in parts:
    np.save(f"{sys.argv[1]}/{split}-labels.npy", y)
    for T, padding in ((50, "post"), (200, "post"), (200, "pre")):
        np.save(f"{sys.argv[1]}/{split}-{T}-{padding}.npy", pad_sequences(x, maxlen=T, padding=padding))
"""


@pytest.fixture(scope="module")
def real_file() -> Path:
    """The real file, wherever the environment has it."""
    for place in imdb_files.places(None):
        path = place.folder / imdb_files.FILE
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == imdb_files.SHA256:
            return path
    pytest.skip(f"the real {imdb_files.FILE} is not here; set KERAS_HOME or RNNBENCH_DATA to the folder that has it")


@pytest.fixture(scope="module")
def unpickled(real_file, tmp_path_factory):
    """The reviews as read from the file itself; from here on this module's own cache has them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RNNBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield imdb_files.load_imdb(real_file.parent)[0]
        imdb_cache.path(imdb_files.SHA256).unlink()


@pytest.fixture
def loaded(real_file, unpickled):
    """Loads a workload by name, from the cache."""

    def load(name: str):
        workload = workloads.get(name)
        return workload.load(Source(workload.T, data_dir=real_file.parent))

    return load


@pytest.fixture(scope="module")
def keras_arrays(real_file, tmp_path_factory):
    """A function from a name, such as test-200-pre, to what Keras makes of the same file."""
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras not installed; pip install '.[tensorflow]'")
    folder = tmp_path_factory.mktemp("keras")
    (folder / "datasets").mkdir()
    (folder / "datasets" / imdb_files.FILE).symlink_to(real_file)
    environment = os.environ | {"KERAS_HOME": str(folder), "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", KERAS, str(folder)], env=environment, check=True, timeout=240)
    yield lambda name: np.load(folder / f"{name}.npy")
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("name", "rows_of"),
    [("imdb-50", "50-post"), ("imdb-200", "200-post"), ("imdb-200-pre", "200-pre"), ("imdb-200-lengths", "200-post")],
)
def test_equals_keras_element_for_element(loaded, keras_arrays, name, rows_of):
    data = loaded(name)
    kept = len(data.train.inputs)
    assert (kept, len(data.test.inputs)) == ((25_000 if name == "imdb-50" else 20_000), 25_000)
    for split, part in (("train", data.train), ("test", data.test)):
        inputs, labels = keras_arrays(f"{split}-{rows_of}"), keras_arrays(f"{split}-labels")
        assert np.array_equal(part.inputs, inputs[: len(part.inputs)])
        assert np.array_equal(part.targets, labels[: len(part.targets)])
        assert part.inputs.dtype == inputs.dtype == np.int32
        if name == "imdb-200-lengths":
            assert np.array_equal(part.lengths, (part.inputs != 0).sum(axis=1))
    assert (data.validation is None) == (name == "imdb-50")
    if data.validation is not None:
        assert np.array_equal(data.validation.inputs, keras_arrays(f"train-{rows_of}")[kept:])
        assert np.array_equal(data.validation.targets, keras_arrays("train-labels")[kept:])


def test_the_cache_equals_the_file(unpickled):
    cached = imdb_cache.read(imdb_files.SHA256)
    assert cached is not None
    for split in ("train", "test"):
        for part in ("tokens", "offsets", "labels"):
            assert np.array_equal(getattr(getattr(cached, split), part), getattr(getattr(unpickled, split), part))


def seconds(call) -> float:
    """Processor time of one thread, the best of five: other work on the machine only ever adds to it."""
    times = []
    for _ in range(5):
        start = time.process_time()
        assert call() is not None
        times.append(time.process_time() - start)
    return min(times)


def test_the_cache_is_read_in_a_fifth_of_a_second(loaded):
    data = loaded("imdb-200")
    assert data.source == "IMDB (Maas et al., 2011), from --data-dir"
    assert int(data.test.targets.sum()) == 12_500
    assert seconds(lambda: imdb_cache.read(imdb_files.SHA256)) < 0.2
    assert seconds(lambda: loaded("imdb-200")) < 1.0
