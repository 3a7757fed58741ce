"""How a worker learns of the others: TF_CONFIG as several launchers set it, and Slurm's environment."""

import json

import pytest

from tfbig.errors import InvalidModel, InvalidOption, WorkerLost
from tfbig.training import strategies
from tfbig.training.slurm import slurm_cluster, slurm_tasks
from tfbig.training.strategies import check_tf_config, is_chief, told_of_lost_workers

WORKERS = ["digits-worker-0.default.svc:2222", "digits-worker-1.default.svc:2222"]


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(
            {
                "cluster": {"worker": ["10.0.0.4:36415", "10.0.0.5:41233"]},
                "task": {"type": "worker", "index": 1},
            },
            id="Ray Train",
        ),
        pytest.param(
            {
                "cluster": {"worker": WORKERS},
                "task": {"type": "worker", "index": 0},
                "environment": "cloud",
            },
            id="TFJob, workers",
        ),
        pytest.param(
            {
                "cluster": {"chief": ["digits-chief-0.default.svc:2222"], "worker": WORKERS},
                "task": {"type": "chief", "index": 0},
                "environment": "cloud",
            },
            id="TFJob, a chief and workers",
        ),
        pytest.param(
            {"cluster": {"worker": WORKERS}, "task": {"type": "worker", "index": "1"}}, id="index as text"
        ),
    ],
)
def test_what_launchers_set_is_accepted(config):
    check_tf_config(json.dumps(config))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("worker 0 of 2", "TF_CONFIG must be JSON such as"),
        ("[]", "TF_CONFIG must be JSON such as"),
        (json.dumps({"cluster": {"worker": WORKERS}}), r"KeyError: 'task'"),
        (
            json.dumps(
                {
                    "cluster": {"worker": WORKERS, "ps": ["a:1"]},
                    "task": {"type": "ps", "index": 0},
                }
            ),
            "this process is a 'ps'; training together needs workers .* the cluster has: worker and ps",
        ),
        (
            json.dumps({"cluster": {"worker": WORKERS}, "task": {"type": "worker", "index": 2}}),
            "this process is worker 2, and the cluster names 2 of them, counted from 0",
        ),
        (
            json.dumps({"cluster": {"worker": WORKERS}, "task": {"type": "evaluator", "index": 0}}),
            "this process is a 'evaluator'",
        ),
    ],
)
def test_a_tf_config_that_cannot_be_right_is_refused(monkeypatch, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InvalidOption, match=message):
        strategies.strategy("auto")


def test_multi_worker_without_a_cluster_is_refused(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(InvalidOption, match="needs to know the machines: set TF_CONFIG in each process"):
        strategies.strategy("multi_worker")


def test_a_process_that_has_used_tensorflow_cannot_join_a_cluster(monkeypatch):
    from tfbig.backend import tf

    tf.zeros(1)
    config = {"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(InvalidOption, match="has used TensorFlow already.*at the top of the script"):
        strategies.strategy()


def test_one_process_is_its_own_chief():
    assert is_chief() is True
    assert is_chief(None) is True


def slurm(**changes):
    environment = {
        "SLURM_PROCID": "3",
        "SLURM_STEP_NUM_TASKS": "5",
        "SLURM_STEP_NODELIST": "n[9-10],gpu-a",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
        "SLURM_JOB_ID": "4002",
        "SLURMD_NODENAME": "n10",
    }
    return {name: value for name, value in {**environment, **changes}.items() if value is not None}


def test_slurms_tasks_are_workers_in_slurms_order():
    addresses, index = slurm_cluster(slurm())
    # n9 before n10, as Slurm numbers them; 15000 + 16 × (4002 mod 1000) is the first port of this job.
    assert addresses == ["n9:15032", "n9:15033", "n10:15032", "n10:15033", "gpu-a:15032"]
    assert index == 3
    assert slurm_tasks(slurm()) == 5
    assert slurm_tasks({}) == 1


@pytest.mark.parametrize(
    ("nodes", "hosts"),
    [
        ("node7", ["node7"]),
        ("a[08-11]", ["a08", "a09", "a10", "a11"]),
        ("a[1,3-4],b", ["a1", "a3", "a4", "b"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("n[1-2].cluster.org", ["n1.cluster.org", "n2.cluster.org"]),
    ],
)
def test_every_form_of_host_list_is_read(nodes, hosts):
    each = {"SLURM_STEP_TASKS_PER_NODE": f"1(x{len(hosts)})", "SLURM_STEP_NODELIST": nodes}
    addresses, _ = slurm_cluster(slurm(SLURM_PROCID="0", SLURMD_NODENAME=None, **each))
    assert [address.partition(":")[0] for address in addresses] == hosts


@pytest.mark.parametrize(
    "changes",
    [
        {"SLURM_PROCID": None},
        {"SLURM_PROCID": "5"},
        {"SLURM_STEP_NODELIST": "n[1-"},
        {"SLURM_STEP_TASKS_PER_NODE": "2,2"},
        {"SLURM_STEP_TASKS_PER_NODE": "many"},
    ],
)
def test_a_slurm_environment_that_does_not_fit_together_is_refused(changes):
    with pytest.raises(InvalidOption, match="Slurm's environment names no machines that fit together"):
        slurm_cluster(slurm(**changes))


def test_tasks_that_are_not_in_blocks_are_refused():
    with pytest.raises(
        InvalidOption, match="task 3 on n9, where tasks in blocks would be on n10.*distribution"
    ):
        slurm_cluster(slurm(SLURMD_NODENAME="n9"))


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (
            "UnavailableError",
            "Graph execution error:\n\nCollective ops is aborted by: Socket closed",
            WorkerLost,
        ),
        ("AbortedError", "Connection reset by peer", WorkerLost),
        ("CancelledError", "", WorkerLost),
        ("InternalError", "Collective ops is aborted by: gone", WorkerLost),
        (
            "InvalidArgumentError",
            "Collective ops is aborted by: Shape mismatch in the collective instance 1.",
            InvalidModel,
        ),
        ("InvalidArgumentError", "indices[0] = 7 is not in [0, 3)", None),
    ],
)
def test_what_tensorflow_says_of_lost_workers_is_translated(monkeypatch, kind, text, expected):
    from tfbig.backend import tf

    error = getattr(tf.errors, kind)
    monkeypatch.setattr(strategies, "is_multi_worker", lambda chosen: True)
    with pytest.raises(expected or error) as caught, told_of_lost_workers("a strategy"):
        raise error(None, None, text)
    if expected:
        assert isinstance(caught.value.__cause__, error)
        assert text.splitlines()[-1:] in ([], [text]) or "Socket closed" in str(caught.value)
    monkeypatch.setattr(strategies, "is_multi_worker", lambda chosen: False)
    with pytest.raises(error), told_of_lost_workers(None):
        raise error(None, None, text)
