"""Folds and searches in other processes: joblib's own engine here, and a cluster of two Dask workers on loopback."""

import os
import signal

import joblib
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

import tfbig
from tfbig.backend import keras
from tfbig.backend.threads import share_of
from tfbig.errors import InvalidData, InvalidOption

L = keras.layers
GENERATOR = np.random.default_rng(0)
Y = np.arange(60) % 3
X = (GENERATOR.normal(size=(60, 5)) + Y[:, None]).astype(np.float32)
OPTIONS = {"cv": 5, "epochs": 2, "batch_size": 8, "seed": 0, "loss": "sparse_categorical_crossentropy"}


def build():
    layers = [L.Dense(6), L.BatchNormalization(), L.ReLU(), L.Dropout(0.3), L.Dense(3, activation="softmax")]
    return keras.Sequential([keras.Input((5,)), *layers])


def spread(build=build, folds="sequential", **options):
    return tfbig.cross_validate(build, X, Y, folds=folds, **{**OPTIONS, **options})


def assert_same(one, other):
    np.testing.assert_array_equal(one.predictions, other.predictions)
    assert one.scores == other.scores
    assert one.histories == other.histories


class Halved:
    """What a `finish` may return: any object with `predict`."""

    def __init__(self, model, rows):
        self.model, self.rows = model, rows

    def predict(self, x):
        return np.asarray(self.model(x)) / 2


@pytest.fixture(scope="module")
def dask():
    """Two worker processes of one thread each, and joblib told to use them."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster):
        yield


def test_folds_in_two_processes_are_those_of_one():
    options = {
        "optimizer": keras.optimizers.Adam(0.01),
        "callbacks": [keras.callbacks.EarlyStopping("loss")],
        "scoring": "roc_auc_ovr",
        "return_train_scores": True,
        "finish": lambda model, x, y: Halved(model, len(x)),
    }
    here, there = spread(**options), spread(**options, n_jobs=2)
    assert (here.workers, there.workers) == (1, 2)
    assert_same(here, there)
    assert there.finished_scores == here.finished_scores
    assert there.train_scores == here.train_scores
    assert "5 folds in" in there.summary()
    assert "in 2 processes" in there.summary()


def test_the_folds_of_each_process_train_together():
    here, there = (
        spread(folds="together", optimizer="sgd"),
        spread(folds="together", optimizer="sgd", n_jobs=2),
    )
    assert (there.mode, there.workers) == ("together", 2)
    np.testing.assert_allclose(there.predictions, here.predictions, atol=1e-5)  # other stacks round otherwise


def test_joblibs_own_settings_are_heard():
    with joblib.parallel_config(n_jobs=2):
        assert spread(cv=2, epochs=1).workers == 2
    with joblib.parallel_config(backend="threading", n_jobs=2):
        in_threads = spread()
    assert_same(in_threads, spread())


def test_an_error_in_a_worker_is_the_error_of_the_call():
    def fails(model, x, y):
        raise RuntimeError(f"out of luck after {len(x)} rows")

    with pytest.raises(RuntimeError, match="out of luck after 48 rows"):
        spread(finish=fails, n_jobs=2)
    with pytest.warns(UserWarning, match="5 of 5 folds failed and score nan"):
        result = spread(finish=fails, n_jobs=2, error_score=np.nan)
    assert set(result.failures) == {"0", "1", "2", "3", "4"}
    assert np.isfinite(result.scores["accuracy"]).all()  # the models themselves were scored
    assert np.isnan(result.finished_scores["accuracy"]).all()
    assert result.difference() == {}


def test_another_architecture_in_a_worker_is_refused_there():
    def grows(x_train, y_train):
        return keras.Sequential([keras.Input((5,)), L.Dense(int(x_train[0, 0] * 100) % 7 + 3), L.Dense(3)])

    with pytest.raises(tfbig.errors.InvalidModel, match="another architecture for fold"):
        spread(grows, n_jobs=2)


@pytest.mark.parametrize("n_jobs", [0, 1.5, True, "2"])
def test_a_number_of_processes_that_makes_no_sense(n_jobs):
    with pytest.raises(InvalidOption, match="n_jobs must be None or a whole number other than 0"):
        spread(n_jobs=n_jobs)


def threads_in_use():
    from tfbig.backend import tf

    return tf.config.threading.get_intra_op_parallelism_threads()


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)  # the word of a user, as conftest.py is one
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        found = joblib.Parallel(n_jobs=2)(joblib.delayed(threads_in_use)() for _ in range(2))
    assert found == [1, 1]
    assert threads_in_use() == 0  # this process was not started as one of several: TensorFlow's own choice


@pytest.mark.parametrize(
    ("environment", "name", "share"),
    [
        ({"OMP_NUM_THREADS": "3"}, "LokyProcess-1", 3),
        ({"OMP_NUM_THREADS": "1"}, "Dask Worker process (from Nanny)", 1),
        ({"OMP_NUM_THREADS": "2", "RAY_RAYLET_PID": "7"}, "MainProcess", 2),
        ({"OMP_NUM_THREADS": "3"}, "MainProcess", None),
        ({}, "LokyProcess-1", None),
        ({"OMP_NUM_THREADS": "3", "TF_NUM_INTRAOP_THREADS": "5"}, "LokyProcess-1", None),
        ({"OMP_NUM_THREADS": "many"}, "LokyProcess-1", None),
    ],
)
def test_whose_word_about_threads_counts(environment, name, share):
    assert share_of(environment, name) == share


def test_a_dask_worker_that_dies_is_replaced_and_the_answer_is_the_same(dask, tmp_path):
    died, parent = tmp_path / "died", os.getpid()

    def fragile():
        if os.getpid() != parent and not died.exists():
            died.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return build()

    expected = spread()
    with joblib.parallel_config("dask"):
        result = spread(fragile)
    assert died.exists()
    assert result.workers == 2
    assert_same(result, expected)


def test_a_grid_search_over_dask_finds_what_one_process_finds(dask):
    classifier = tfbig.KerasClassifier(hidden=(4,), epochs=2, seed=0, optimizer="sgd")
    grid = {"hidden": [(4,), (6,)], "optimizer__learning_rate": [0.01, 0.3]}
    here = GridSearchCV(classifier, grid, cv=3).fit(X, Y)
    with joblib.parallel_config("dask"):
        there = GridSearchCV(classifier, grid, cv=3).fit(X, Y)
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_allclose(there.cv_results_[name], here.cv_results_[name])
    assert there.best_params_ == here.best_params_
    np.testing.assert_allclose(there.predict_proba(X), here.predict_proba(X), atol=1e-6)


def test_a_fold_that_cannot_be_split_is_refused_before_any_worker_starts():
    with pytest.raises(InvalidData, match="61 folds need at least 61 rows"):
        spread(cv=61, n_jobs=2)
