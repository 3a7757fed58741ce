"""Which devices and machines a model trains on, as a `tf.distribute.Strategy`."""

import contextlib
import functools
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from tfbig.backend import keras, tf
from tfbig.backend.distribution import home_of, mirrored_strategy
from tfbig.errors import InvalidModel, InvalidOption, WorkerLost, unknown_choice
from tfbig.training.slurm import slurm_cluster, slurm_tasks

_NAMES = ("auto", "mirrored", "multi_worker")
_TASKS = ("chief", "worker")


def strategy(spec: Any = "auto") -> Any:
    """Returns the strategy that `fit(strategy=spec)` trains with.

    Args:
        spec: "auto": several machines where `TF_CONFIG` (or Slurm, with more than one task) names them, all GPUs
            where there are two or more, else one device. "mirrored": all GPUs, or all logical CPUs. "multi_worker":
            the machines of `TF_CONFIG` or Slurm. A number of devices; a list of device names; any
            `tf.distribute.Strategy`; None for one device.

    Returns:
        A `tf.distribute.Strategy`, or None where the first device does the work: a strategy over one device only
        costs time.

    Raises:
        InvalidOption: An unknown name or device, more devices than there are, a TF_CONFIG that cannot be right.

    Example:
        >>> import tfbig
        >>> tfbig.strategy(1) is None
        True
    """
    if spec is None or isinstance(spec, tf.distribute.Strategy):
        return spec
    if isinstance(spec, str):
        return _named(spec)
    if isinstance(spec, bool):
        raise InvalidOption(f"strategy must be a name, a number of devices, a list of devices; got {spec!r}.")
    if isinstance(spec, int):
        return _mirrored(_first(spec))
    if isinstance(spec, Sequence):
        return _over([_known(name) for name in spec])
    raise InvalidOption(
        f"strategy must be one of {', '.join(map(repr, _NAMES))}, a number of devices, a list of device names or a "
        f"tf.distribute.Strategy; got {spec!r}."
    )


def strategy_of(model: Any, spec: Any) -> Any:
    """Returns the strategy that a model trains with: "auto" is the one in whose scope it was made, if it was.

    Raises:
        InvalidOption: Another one is asked for, or as `strategy` says.
    """
    home = home_of(model) if isinstance(model, keras.Model) else None
    if home is None:
        return strategy(spec)
    chosen = home if spec == "auto" else strategy(spec)
    if chosen is not home:
        raise InvalidOption(
            f"The model {model.name!r} was made in the scope of a {describe(home)}; strategy={spec!r} is another. "
            "Leave strategy at its default, pass that very one, or make the model outside of any scope."
        )
    return home


def scope_of(chosen: Any) -> Any:
    """Returns the context in which a model for this strategy is made."""
    return contextlib.nullcontext() if chosen is None else chosen.scope()


def describe(chosen: Any) -> str:
    """Returns what a person calls the strategy: "1 device", "MirroredStrategy, 2 replicas"."""
    if chosen is None:
        return "1 device"
    name = type(chosen).__name__
    if isinstance(chosen, tf.distribute.MultiWorkerMirroredStrategy):
        name = f"MultiWorkerMirroredStrategy, {worker_count(chosen)} workers"
    replicas = chosen.num_replicas_in_sync
    return f"{name}, {replicas} replica{'s' * (replicas != 1)}"


def is_multi_worker(chosen: Any) -> bool:
    """Whether several processes train together."""
    return worker_count(chosen) > 1


def worker_count(chosen: Any) -> int:
    """Returns how many processes train together."""
    resolver = getattr(chosen, "cluster_resolver", None)
    if resolver is None or not resolver.cluster_spec():
        return 1
    spec = resolver.cluster_spec().as_dict()
    return sum(len(spec.get(kind, ())) for kind in _TASKS)


def is_chief(chosen: Any = "auto") -> bool:
    """Returns whether this process is the one that writes files: the first of several workers, or the only one.

    `fit` itself writes checkpoints in the chief only. What a script writes after it is the script's own affair.

    Args:
        chosen: The training's strategy, or what `strategy` makes one of.

    Example:
        >>> import tfbig
        >>> tfbig.is_chief()
        True
    """
    chosen = strategy(chosen)
    if not is_multi_worker(chosen):
        return True
    resolver = chosen.cluster_resolver
    kinds = resolver.cluster_spec().as_dict()
    if "chief" in kinds:
        return bool(resolver.task_type == "chief")
    return bool(resolver.task_id == 0)


@contextlib.contextmanager
def told_of_lost_workers(chosen: Any) -> Iterator[None]:
    """Raises `WorkerLost` for what TensorFlow says when another process of a training dies, freezes or is cut off.

    Each process sends the first one heartbeats, from a thread that Python does not hold up. After 10 seconds
    without, TensorFlow's own limit, the others are told; if it is the first one that is silent, they notice by
    themselves. A worker that is slow, or stuck in its own script, goes on sending them and is waited for.

    And `InvalidModel` when this one sends what the others do not expect: a model of other shapes.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if not is_multi_worker(chosen):
            raise
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        # Above the line that says what happened stands where: the whole stack, as of the step's tracing.
        reason = next((line for line in lines if _ABORTED in line or _OTHER_SHAPE in line), lines[0])[:400]
        if _OTHER_SHAPE in str(error):
            raise InvalidModel(
                f"The workers are making different models ({reason}). Start the same script in each."
            ) from error
        if isinstance(error, _OF_A_LOST_WORKER) or _ABORTED in str(error):
            raise WorkerLost(
                f"Another worker of this training died or cannot be reached ({reason}). Start all workers again; "
                "with checkpoint_dir the training goes on from the last checkpoint."
            ) from error
        raise


_ABORTED, _OTHER_SHAPE = "Collective ops is aborted", "Shape mismatch in the collective"
_OF_A_LOST_WORKER = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)


def _named(name: str) -> Any:
    if name not in _NAMES:
        raise unknown_choice("strategy", name, _NAMES)
    if name == "multi_worker" or (
        name == "auto" and (os.environ.get("TF_CONFIG") or slurm_tasks(os.environ) > 1)
    ):
        return _multi_worker()
    devices = _devices("GPU") or ([] if name == "auto" else _devices("CPU"))
    return _mirrored(devices)


def _over(devices: list[str]) -> Any:
    """A strategy over devices that were named: also one alone, unless it is the one that is used anyway."""
    if not devices:
        raise InvalidOption("strategy, where it is a list, must name at least one device; got [].")
    twice = sorted({name for name in devices if devices.count(name) > 1})
    if twice:
        raise InvalidOption(f"strategy names {', '.join(twice)} twice; each device holds one replica.")
    if len(devices) > 1 or devices[0] == (_devices("GPU") or _devices("CPU"))[0]:
        return _mirrored(devices)
    return tf.distribute.OneDeviceStrategy(f"/device:{devices[0]}")


def _mirrored(devices: list[str]) -> Any:
    return mirrored_strategy(tuple(devices)) if len(devices) > 1 else None


@functools.cache  # A process joins its cluster once; a second strategy would wait for machines that do not come.
def _multi_worker() -> Any:
    resolver = None
    if os.environ.get("TF_CONFIG"):
        check_tf_config(os.environ["TF_CONFIG"])
    elif slurm_tasks(os.environ) > 1:
        workers, index = slurm_cluster(os.environ)
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({"worker": workers}),
            task_type="worker",
            task_id=index,
            # Those that Slurm lets this task see.
            num_accelerators={"GPU": len(tf.config.list_physical_devices("GPU"))},
            rpc_layer="grpc",
        )
    else:
        raise InvalidOption(_NO_CLUSTER)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except RuntimeError as error:
        raise InvalidOption(
            f"This process has used TensorFlow already, so it cannot join the other workers any more ({error}). "
            'Call tfbig.strategy("multi_worker") at the top of the script, before any model or tensor is made.'
        ) from error


_NO_CLUSTER = (
    'strategy="multi_worker" needs to know the machines: set TF_CONFIG in each process, for example '
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}, or start '
    "the job under Slurm."
)


def check_tf_config(text: str) -> None:
    """Raises `InvalidOption` for a TF_CONFIG that names no cluster, or a task outside of it."""
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        kind, index = task["type"], int(task["index"])
        hosts = {name: len(machines) for name, machines in cluster.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidOption(
            'TF_CONFIG must be JSON such as {"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": '
            f'"worker", "index": 0}}}}; got {text!r} ({type(error).__name__}: {error}).'
        ) from error
    others = sorted(set(cluster) - set(_TASKS))
    if others or kind not in cluster:
        known = ", ".join(sorted(set(cluster) & set(_TASKS))) or "none"
        raise InvalidOption(
            f"TF_CONFIG: this process is a {kind!r}; training together needs workers (and at most one chief), and "
            f"the cluster has: {known}{' and ' + ', '.join(others) if others else ''}."
        )
    if not 0 <= index < hosts[kind]:
        raise InvalidOption(
            f"TF_CONFIG: this process is {kind} {index}, and the cluster names {hosts[kind]} of them, "
            f"counted from 0: {cluster[kind]}."
        )


def _devices(kind: str) -> list[str]:
    return [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices(kind)]


def _first(count: int) -> list[str]:
    devices = _devices("GPU") or _devices("CPU")
    if not 1 <= count <= len(devices):
        raise InvalidOption(
            f"strategy={count} asks for {count} devices; this process sees {len(devices)}: {', '.join(devices)}."
        )
    return devices[:count]


def _known(name: Any) -> str:
    devices = [*_devices("GPU"), *_devices("CPU")]
    plain = str(name).removeprefix("/device:").removeprefix("/").upper()
    if plain not in devices:
        raise unknown_choice("device", str(name), devices)
    return plain
