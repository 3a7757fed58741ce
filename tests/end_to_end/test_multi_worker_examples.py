"""The recipes for several machines, checked as far as one machine can."""

import contextlib
import os
import py_compile
import random
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tfbig.training.slurm import slurm_cluster

FOLDER = Path(__file__).parents[2] / "examples" / "multi_worker"


def job_with_free_ports(step):
    """The number of a job, which decides its tasks' ports, such that nobody listens on them."""
    for _ in range(100):
        job = str(random.SystemRandom().randrange(100_000))
        addresses, _ = slurm_cluster({**step, "SLURM_JOB_ID": job, "SLURM_PROCID": "0"})
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for address in addresses:
                held.enter_context(socket.socket()).bind(("", int(address.rsplit(":", 1)[1])))
            return job
    raise AssertionError("this machine has no two free ports below its range for outgoing connections")


def test_the_script_trains_in_two_tasks_of_slurm(tmp_path):
    step = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": "2",
        "SLURMD_NODENAME": "localhost",
    }
    step["SLURM_JOB_ID"] = job_with_free_ports(step)
    environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    tasks = [
        subprocess.Popen(
            [sys.executable, FOLDER / "train.py", "--epochs", "3", "--folder", tmp_path],
            env={**environment, **step, "SLURM_PROCID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        (chief, notes), (other, _) = [task.communicate(timeout=200) for task in tasks]
    finally:
        for task in tasks:
            task.kill()
    assert [task.returncode for task in tasks] == [0, 0], notes[-2000:]
    assert re.search(r"MultiWorkerMirroredStrategy, 2 workers, 2 replicas\naccuracy 0\.[89]", chief), chief
    assert other == ""
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "model.keras", "run.json"}


def test_the_slurm_script_is_bash():
    script = FOLDER / "slurm.sbatch"
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    text = script.read_text()
    assert text.startswith("#!/bin/bash\n")
    # Slurm stops reading directives at the first command.
    assert text.rindex("\n#SBATCH") < text.index("\nset -euo")


def test_the_tfjob_is_what_the_operator_reads():
    job = read_yaml((FOLDER / "tfjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "TFJob")
    replicas = job["spec"]["tfReplicaSpecs"]
    assert set(replicas) == {"Worker"}  # tfbig refuses a cluster with parameter servers
    assert int(replicas["Worker"]["replicas"]) == 2
    assert replicas["Worker"]["restartPolicy"] == "OnFailure"
    pod = replicas["Worker"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["name"] == "tensorflow"
    assert container["ports"] == [{"name": "tfjob-port", "containerPort": "2222"}]
    (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
    assert mount["name"] == volume["name"]
    assert any(part == f"--folder={mount['mountPath']}/digits" for part in container["command"])


def test_the_ray_script_compiles(tmp_path):
    compiled = tmp_path / "out.pyc"
    assert py_compile.compile(str(FOLDER / "ray_train.py"), cfile=str(compiled), doraise=True) == str(
        compiled
    )


def read_yaml(text):
    """Reads block mappings, block lists and plain scalars, which is all the manifest uses, into dicts and lists."""
    lines = []
    for line in text.splitlines():
        content = re.sub(r"(^|\s)#.*", "", line).rstrip()
        if content:
            assert "\t" not in content
            lines.append((len(content) - len(content.lstrip()), content.strip()))

    def block(indent):
        found = [] if lines[0][1].startswith("- ") else {}
        while lines and lines[0][0] == indent:
            text = lines[0][1]
            if isinstance(found, list):
                assert text.startswith("- "), text
                item = text[2:]
                if re.match(r"[\w./-]+:( |$)", item):
                    lines[0] = (indent + 2, item)
                    found.append(block(indent + 2))
                else:
                    lines.pop(0)
                    found.append(item)
                continue
            name, colon, value = text.partition(":")
            assert colon, text
            assert name not in found, f"{name} twice"
            lines.pop(0)
            found[name] = value.strip().strip('"') if value.strip() else block(lines[0][0])
        assert not lines or lines[0][0] < indent, f"indented unlike its block: {lines[0]}"
        return found

    read = block(0)
    assert not lines
    return read
