import json
import os
import subprocess
import sys

import pytest

import tfbig
from tfbig.backend import tf
from tfbig.errors import InvalidOption, WorkerLost
from tfbig.training import strategies
from tfbig.training.strategies import (
    check_tf_config,
    describe,
    is_chief,
    is_multi_worker,
    scope_of,
    told_of_lost_workers,
    worker_count,
)

gpus = len(tf.config.list_physical_devices("GPU"))


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.skipif(gpus > 1, reason="several GPUs are taken by themselves")
@pytest.mark.parametrize("spec", [None, "auto", 1, ["CPU:0"], ["/device:cpu:0"]], ids=str)
def test_one_device_needs_no_strategy(spec):
    chosen = tfbig.strategy(spec)
    assert chosen is None
    assert describe(chosen) == "1 device"
    assert is_chief(chosen)
    assert (is_multi_worker(chosen), worker_count(chosen)) == (False, 1)
    with scope_of(chosen):
        pass


def test_a_strategy_is_taken_as_it_is():
    given = tf.distribute.get_strategy()
    assert tfbig.strategy(given) is given


BAD = {
    "name": ("mirored", r"'auto', 'mirrored', 'multi_worker'; got 'mirored'\. Did you mean 'mirrored'"),
    "zero": (0, r"strategy=0 asks for 0 devices; this process sees \d+: .*PU:0"),
    "too many": (99, r"strategy=99 asks for 99 devices; this process sees \d+: .*PU:0"),
    "negative": (-1, "strategy=-1 asks for -1 devices"),
    "bool": (True, "strategy must be a name, a number of devices, a list of devices.*; got True"),
    "fraction": (1.5, r"a list of device names or a tf\.distribute\.Strategy; got 1\.5"),
    "class": (tf.distribute.MirroredStrategy, r"tf\.distribute\.Strategy; got <class"),
    "device": (["CPU:0", "TPU:7"], "device must be one of .*'CPU:0'.*; got 'TPU:7'"),
    "device that is no text": ([0, 1], "device must be one of .*; got '0'"),
    "no devices": ([], "at least one device"),
    "a device twice": (["CPU:0", "cpu:0"], "CPU:0 .*twice"),
    "no cluster": (
        "multi_worker",
        "needs to know the machines: set TF_CONFIG .*or start the job under Slurm",
    ),
}


@pytest.mark.parametrize(("spec", "message"), BAD.values(), ids=BAD)
def test_what_is_no_strategy_is_refused(spec, message):
    with pytest.raises(InvalidOption, match=message):
        tfbig.strategy(spec)


@pytest.mark.parametrize(("spec", "message"), BAD.values(), ids=BAD)
def test_fit_refuses_what_is_no_strategy(spec, message, blobs):
    with pytest.raises(InvalidOption, match=message):
        tfbig.fit(tfbig.models.mlp((4,), 3), *blobs, strategy=spec)


HOSTS = {"worker": ["a:1", "b:1"]}


def config(cluster=HOSTS, kind="worker", index=0):
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    "text",
    [
        config(),
        config(index=1),
        config(index="1"),
        config({"chief": ["c:1"], **HOSTS}, "chief"),
        config({"chief": ["c:1"], **HOSTS}, "worker", 1),
    ],
)
def test_a_cluster_that_can_be(text):
    check_tf_config(text)


BAD_CONFIG = {
    "no JSON": ("worker 0", "must be JSON such as .*got 'worker 0'.*JSONDecodeError"),
    "half JSON": (config()[:-2], "must be JSON such as"),
    "a list": ("[]", "must be JSON such as .*TypeError"),
    "a number": ("1", "must be JSON such as .*TypeError"),
    "no task": (json.dumps({"cluster": HOSTS}), "must be JSON such as .*KeyError: 'task'"),
    "no cluster": (json.dumps({"task": {"type": "worker", "index": 0}}), "KeyError: 'cluster'"),
    "no index": (json.dumps({"cluster": HOSTS, "task": {"type": "worker"}}), "KeyError: 'index'"),
    "index that is text": (config(index="first"), "must be JSON such as .*ValueError"),
    "index of null": (config(index=None), "must be JSON such as .*TypeError"),
    "cluster that is a list": (config(["worker"]), "must be JSON such as .*got .*AttributeError"),
    "hosts that are a number": (config({"worker": 2}), "must be JSON such as .*TypeError"),
    "unknown task": (config(kind="boss"), "this process is a 'boss'; .*the cluster has: worker"),
    "chief outside the cluster": (config(kind="chief"), "this process is a 'chief'; .*has: worker"),
    "parameter servers": (
        config({**HOSTS, "ps": ["c:1"]}),
        "training together needs workers .*: worker and ps",
    ),
    "index too high": (
        config(index=2),
        r"is worker 2, and the cluster names 2 of them, counted from 0: \['a:1'",
    ),
    "index below 0": (config(index=-1), "is worker -1, and the cluster names 2"),
    "empty cluster": (config({}), "the cluster has: none"),
}


@pytest.mark.parametrize(("text", "message"), BAD_CONFIG.values(), ids=BAD_CONFIG)
@pytest.mark.parametrize("spec", ["auto", "multi_worker"])
def test_a_cluster_that_cannot_be_is_refused(monkeypatch, spec, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InvalidOption, match=message):
        tfbig.strategy(spec)


def test_a_process_that_has_used_tensorflow_cannot_join_and_is_told_what_to_do(monkeypatch):
    tf.constant(1)
    monkeypatch.setenv("TF_CONFIG", config({"worker": ["localhost:1", "localhost:2"]}))
    with pytest.raises(
        InvalidOption,
        match=r"has used TensorFlow already.*Call tfbig\.strategy\(\"multi_worker\"\) at the top",
    ):
        tfbig.strategy("multi_worker")
    strategies._multi_worker.cache_clear()


class Resolver:
    def __init__(self, cluster, kind, index):
        self.task_type, self.task_id = kind, index
        self.cluster = cluster

    def cluster_spec(self):
        return tf.train.ClusterSpec(self.cluster)


class Together(tf.distribute.OneDeviceStrategy):
    """A strategy that says of itself what one over several machines says."""

    def __init__(self, *task):
        super().__init__("/cpu:0")
        self.resolver = Resolver(*task)

    @property
    def cluster_resolver(self):
        return self.resolver


@pytest.mark.parametrize(
    ("task", "chief", "count"),
    [
        ((HOSTS, "worker", 0), True, 2),
        ((HOSTS, "worker", 1), False, 2),
        (({"chief": ["c:1"], **HOSTS}, "chief", 0), True, 3),
        (({"chief": ["c:1"], **HOSTS}, "worker", 0), False, 3),
        (({"worker": ["a:1"]}, "worker", 0), True, 1),
        (({}, None, None), True, 1),
    ],
)
def test_one_worker_is_the_chief(task, chief, count):
    together = Together(*task)
    assert (is_chief(together), worker_count(together), is_multi_worker(together)) == (
        chief,
        count,
        count > 1,
    )


@pytest.mark.parametrize(
    "kind", [tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError]
)
def test_a_worker_that_is_lost_is_told_of(kind):
    with (
        pytest.raises(
            WorkerLost, match=r"died or cannot be reached \(connection reset\)\. Start all workers"
        ),
        told_of_lost_workers(Together(HOSTS, "worker", 0)),
    ):
        raise kind(None, None, "connection reset\nmore lines")


def test_on_one_machine_no_worker_is_lost():
    with pytest.raises(tf.errors.AbortedError), told_of_lost_workers(None):
        raise tf.errors.AbortedError(None, None, "something else")


ON_TWO_CPUS = """
import json, os
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
import keras, tfbig
from tfbig.training.strategies import describe
found = {"auto": tfbig.strategy("auto") is None, "mirrored": describe(tfbig.strategy("mirrored"))}
found["two"] = tfbig.strategy(2).extended.worker_devices
found["named"] = tfbig.strategy(["cpu:2", "/device:CPU:0"]).extended.worker_devices
found["again"] = tfbig.strategy(2) is tfbig.strategy(["CPU:0", "CPU:1"])
found["alone"] = tfbig.strategy(["CPU:1"]).extended.worker_devices
x = np.random.default_rng(0).normal(size=(40, 4)).astype("float32"); y = (x[:, 0] > 0).astype(int)
mine = tf.distribute.MirroredStrategy(["CPU:1", "CPU:2"])
places = []
def build():
    model = tfbig.models.mlp((4,), 2, hidden=(4 + len(places),))
    places.append(tf.distribute.get_strategy() is not mine)
    return model
# Models of different shapes, on strategies of different sizes, in one process.
fits = [tfbig.fit(build, x, y, strategy=s, epochs=1, seed=0, verbose=0) for s in (2, mine, 3, ["CPU:1"], 2, "mirrored")]
found["fits"] = [run.strategy for run in fits]
found["own scope"] = places
found["finite"] = bool(np.isfinite([run.history["loss"] for run in fits]).all())
print(json.dumps(found))
"""


def test_devices_are_taken_as_named():
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    result = subprocess.run(
        [sys.executable, "-c", ON_TWO_CPUS], capture_output=True, text=True, timeout=300, env=environment
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout.splitlines()[-1])
    place = "/job:localhost/replica:0/task:0/device:CPU:"
    assert found == {
        "auto": True,  # logical CPUs are taken when asked for only
        "mirrored": "MirroredStrategy, 3 replicas",
        "two": [f"{place}0", f"{place}1"],
        "named": [f"{place}2", f"{place}0"],
        "again": True,
        "alone": [f"{place}1"],
        "fits": [
            "MirroredStrategy, 2 replicas",
            "MirroredStrategy, 2 replicas",
            "MirroredStrategy, 3 replicas",
            "OneDeviceStrategy, 1 replica",
            "MirroredStrategy, 2 replicas",
            "MirroredStrategy, 3 replicas",
        ],
        "own scope": [True, False, True, True, True, True],
        "finite": True,
    }
