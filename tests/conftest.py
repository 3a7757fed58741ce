"""What every test may use: small data that ships with scikit-learn, and one small trained model."""

import gc
import os
import random
import sys

# Tests own their process: quiet logs, and no GPU memory taken where there is one.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Workers of pytest-xdist share the cores as those of `tfbig workers` do. Else each has a thread for every core, and
# threads spin while they wait for work: a tenth of the time, or more where small models train.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    from tfbig.workers import threads_each

    _share = threads_each(int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(_share))

import numpy as np
import pytest


def pytest_configure(config):
    """Workers of pytest-xdist take files in the order of their names, and the doctests, which are short, last.

    By itself it begins with the files of most tests, so that long files of few tests come late, and one worker may
    be left alone with one. And files of a room follow each other, while the converter process is still warm.
    """
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_finish():
    """What was imported and collected stays to the end: garbage collection need not walk through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """What a module's fixtures make is the same in every run; they are made before those of a test."""
    _same_chances()


@pytest.fixture(autouse=True)
def _as_if_alone():
    """Every test starts from the same random numbers, whichever ran before it."""
    _same_chances()


def _same_chances():
    """Keras draws its seeds from Python's."""
    random.seed(0)
    np.random.seed(0)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture(scope="session")
def digits():
    """Digits, split once: `x_train, x_test, y_train, y_test`, images of shape (8, 8, 1) with values 0 to 16."""
    import tfbig

    data = tfbig.load_dataset("digits")
    return tfbig.split(data.x, data.y, seed=0)


@pytest.fixture(scope="session")
def digits_model(digits):
    """A small convolutional network trained on digits. Shared by tests: none may change it."""
    import tfbig

    def build(x_train):
        return tfbig.models.cnn((8, 8, 1), 10, filters=(16, 32), normalizer=tfbig.normalizer(x_train))

    return tfbig.fit(build, digits.x_train, digits.y_train, epochs=8, seed=0, verbose=0).model


@pytest.fixture
def blobs():
    """200 rows of 4 features around 3 centres, with the centre as label: easy to learn."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 200)
    centres = np.array([[3, 0, 0, 0], [0, 3, 0, 0], [0, 0, 3, 0]], np.float32)
    x = (centres[y] + generator.normal(scale=0.5, size=(200, 4))).astype(np.float32)
    return x, y


@pytest.fixture(scope="session")
def digits_lite(digits, digits_model, tmp_path_factory):
    """`digits_model` as an int8 LiteRT file. Shared by tests: none may change it."""
    import tfbig

    path = tmp_path_factory.mktemp("lite") / "digits.tflite"
    return tfbig.export(digits_model, path, quantize="int8", calibration=digits.x_train)
