"""The machines of a Slurm job step, read from its environment.

TensorFlow's own SlurmClusterResolver needs nvidia-smi on every machine and at least one GPU per task, sorts hosts
by name where Slurm numbers tasks by its list (n9 before n10), and gives every job the same port.
"""

import itertools
import re
from collections.abc import Mapping

from tfbig.errors import InvalidOption

# Below the range from which kernels take ports for outgoing connections.
_FIRST_PORT, _JOBS, _PORTS_EACH = 15_000, 1000, 16


def slurm_tasks(environment: Mapping[str, str]) -> int:
    """Returns how many tasks `srun` started together; 1 outside of it."""
    count = environment.get("SLURM_STEP_NUM_TASKS", "")
    return int(count) if count.isdigit() else 1


def slurm_cluster(environment: Mapping[str, str]) -> tuple[list[str], int]:
    """Returns the addresses of all tasks, each of which is a worker, and which of them this process is.

    Ports follow from the job's number, so that two jobs may share a machine.

    Args:
        environment: The environment that `srun` gives its tasks.

    Raises:
        InvalidOption: A variable is missing or unreadable, or the tasks are not spread over the machines in blocks.

    Example:
        >>> slurm_cluster({"SLURM_PROCID": "2", "SLURM_STEP_NODELIST": "n[9-10]", "SLURM_JOB_ID": "7",
        ...                "SLURM_STEP_TASKS_PER_NODE": "2,1", "SLURMD_NODENAME": "n10"})
        (['n9:15112', 'n9:15113', 'n10:15112'], 2)
    """
    names = ("SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE")
    try:
        rank, nodes, tasks = (environment[name] for name in names)
        hosts, counts = _hosts(nodes), _counts(tasks)
        first = _FIRST_PORT + int(environment.get("SLURM_JOB_ID", 0)) % _JOBS * _PORTS_EACH
        placed = [(host, first + i) for host, count in zip(hosts, counts, strict=True) for i in range(count)]
        mine = placed[int(rank)][0]
    except (KeyError, ValueError, IndexError) as error:
        seen = ", ".join(f"{name}={environment.get(name)!r}" for name in names)
        raise InvalidOption(
            f"Slurm's environment names no machines that fit together ({seen}; {type(error).__name__}: {error}). "
            "Start the script by srun, or set TF_CONFIG."
        ) from error
    here = environment.get("SLURMD_NODENAME", mine)
    if here != mine:
        raise InvalidOption(
            f"Slurm runs task {rank} on {here}, where tasks in blocks would be on {mine}. Start the script with "
            "srun --distribution=block, or set TF_CONFIG."
        )
    return [f"{host}:{port}" for host, port in placed], int(rank)


def _hosts(nodes: str) -> list[str]:
    """Every host of a list such as "n[01-03,7],gpu2", in its order."""
    found = []
    for part in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", nodes):
        pieces = [
            _range(piece[1:-1]) if piece[0] == "[" else [piece]
            for piece in re.findall(r"\[[^\]]*\]|[^\[\]]+", part)
        ]
        found += ["".join(names) for names in itertools.product(*pieces)]
    return found


def _range(numbers: str) -> list[str]:
    found = []
    for part in numbers.split(","):
        first, _, last = part.partition("-")
        found += [str(i).zfill(len(first)) for i in range(int(first), int(last or first) + 1)]
    return found


def _counts(tasks: str) -> list[int]:
    """Tasks of each host, from a list such as "3(x2),1"."""
    found: list[int] = []
    for part in tasks.split(","):
        count, _, times = part.partition("(x")
        found += [int(count)] * int(times.rstrip(")") or 1)
    return found
