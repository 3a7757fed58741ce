"""The same training on 1 device, on 2 and 4 logical CPU replicas and in 2 worker processes: how far weights differ.

    python benchmarks/replicas.py [--quick]

Digits, 1,797 rows, batches of 64 (the last holds 5), 5 epochs. Prints the largest difference from one device in any
weight, beside how far one device moves when its initial weights are off by one rounding (2^-23, "nudged"); then what
happens when a worker is killed with -9 in the middle of an epoch, and when one is frozen (SIGSTOP: it keeps its
connections and answers nothing), and writes benchmarks/results/replicas.json. Exits with 1 where a limit is missed:
1e-5 with SGD, 5e-5 with Adam, 1e-4 with synchronized batch normalization; History equal in both workers; an error
within 20 s of the kill and of the freeze; the restarted training ends with the uninterrupted one's weights. `--quick`
leaves out most combinations.
"""

import argparse
import functools
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

RESULTS = Path(__file__).parent / "results"
EPOCHS, BATCH = 5, 64
KILLED_AT = (2, 13)  # epoch and batch, counted from 0
# TensorFlow's heartbeats are missed after 10; the rest is for a busy machine.
SECONDS_TO_NOTICE = 20
ROUNDING = 2.0**-23
LIMITS = {"SGD": 1e-5, "Adam": 5e-5}
BATCH_NORM_LIMIT = 1e-4
KILLED = {
    "model": "CNN, layer norm",
    "optimizer": "Adam",
    "weights": False,
    "accumulation": 1,
    "steps": 1,
}


def cases(quick):
    combinations = itertools.product(
        ("MLP", "CNN, layer norm", "CNN, batch norm"), LIMITS, (False, True), (1, 4), (1, "auto")
    )
    listed = [
        dict(zip(("model", "optimizer", "weights", "accumulation", "steps"), case, strict=True))
        for case in combinations
    ]
    if quick:  # a plain one and the most demanding one of each model and optimizer
        listed = [case for case in listed if (case["weights"], case["accumulation"], case["steps"]) in _QUICK]
    return listed


_QUICK = ((False, 1, 1), (True, 4, "auto"))


def limit(case):
    return BATCH_NORM_LIMIT if "batch norm" in case["model"] else LIMITS[case["optimizer"]]


def network(name):
    import keras

    layers = keras.layers
    # Smooth throughout. With ReLU and max pooling, rounding decides on which side of a kink some value falls: moving
    # the initial weights by one rounding then moves the final ones of one device by up to 1e-2 as well.
    stacks = {
        "MLP": [
            layers.Flatten(),
            layers.Dense(128, activation="gelu"),
            layers.Dense(64, activation="gelu"),
        ],
        "CNN, layer norm": [
            *(layers.Conv2D(16, 3, padding="same"), layers.LayerNormalization(), layers.Activation("gelu")),
            *(layers.AveragePooling2D(2), layers.Conv2D(32, 3, activation="gelu"), layers.Flatten()),
        ],
        "CNN, batch norm": [
            *(layers.Conv2D(16, 3, use_bias=False), layers.BatchNormalization(), layers.Activation("gelu")),
            *(layers.Conv2D(32, 3, use_bias=False), layers.BatchNormalization(), layers.Activation("gelu")),
            layers.Flatten(),
        ],
    }
    return keras.Sequential([keras.Input((8, 8, 1)), *stacks[name], layers.Dense(10)])


def train(case, strategy, nudge=0.0, **more):
    import keras
    import numpy as np

    import tfbig

    data = tfbig.load_dataset("digits")
    keras.utils.set_random_seed(3)
    optimizer = keras.optimizers.SGD(0.05) if case["optimizer"] == "SGD" else keras.optimizers.Adam()
    weights = np.random.default_rng(0).uniform(size=len(data.x)) if case["weights"] else None
    model = network(case["model"])
    signs = np.random.default_rng(1)
    model.set_weights([w * (1 + nudge * signs.choice((-1, 1), w.shape)) for w in model.get_weights()])
    return tfbig.fit(
        *(model, (data.x / 16).astype("float32"), data.y),
        strategy=strategy,
        optimizer=optimizer,
        sample_weight=weights,
        gradient_accumulation=case["accumulation"],
        steps_per_execution=case["steps"],
        epochs=EPOCHS,
        batch_size=BATCH,
        seed=0,
        verbose=0,
        **more,
    )


def save(run, path):
    import numpy as np

    # Moving averages of batch normalization included.
    weights = {f"weight/{i}": value for i, value in enumerate(run.model.get_weights())}
    np.savez(path, **weights, history=json.dumps(run.history), seconds=run.seconds)


# What the child processes do.


def on_devices(replicas, folder, quick):
    """One number of replicas for each process: TensorFlow's groups of CPUs cannot grow in one."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    for i, case in enumerate(cases(quick)):
        save(train(case, replicas), folder / f"{i}-{replicas}.npz")
        if replicas == 1:
            save(train(case, 1, nudge=ROUNDING), folder / f"{i}-nudged.npz")


def in_workers(folder, quick):
    import tfbig

    tfbig.strategy()
    for i, case in enumerate(cases(quick)):
        save(train(case, "auto"), folder / f"{i}-worker{own_index()}.npz")


def with_checkpoints(folder, ended_by=None, which=1):
    """Trains with checkpoints; worker `which` may be ended by a signal in the middle."""
    import keras

    import tfbig
    from tfbig.errors import WorkerLost

    class Dies(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            if ended_by and own_index() == which and (self.epoch, batch) == KILLED_AT:
                print(f"ended at {time.time():.2f}", flush=True)
                os.kill(os.getpid(), ended_by)

    tfbig.strategy()
    options = {"checkpoint_dir": folder / "checkpoints", "checkpoint_every": 10}
    try:
        save(train(KILLED, "auto", callbacks=[Dies()], **options), folder / f"resumed-{own_index()}.npz")
    except WorkerLost as error:
        print(f"lost at {time.time():.2f}: {error}", flush=True)
        raise


def own_index():
    return json.loads(os.environ["TF_CONFIG"])["task"]["index"]


CHILDREN = {
    **{f"{n} replicas": functools.partial(on_devices, n) for n in (1, 2, 4)},
    "workers": in_workers,
    "die": lambda folder, quick: with_checkpoints(folder, signal.SIGKILL),
    "freeze the chief": lambda folder, quick: with_checkpoints(folder / "frozen 0", signal.SIGSTOP, 0),
    "freeze the other": lambda folder, quick: with_checkpoints(folder / "frozen 1", signal.SIGSTOP, 1),
    "resume": lambda folder, quick: with_checkpoints(folder),
}


# What this process does.


ENDED = ("die", "freeze the chief", "freeze the other")


def child(what, folder, quick, *, workers=False):
    # A frozen process does not end by itself.
    grace = "3" if what.startswith("freeze") else "70"
    launcher = ["-m", "tfbig", "workers", "-n", "2", "--grace", grace] if workers else []
    command = [sys.executable, *launcher, __file__, "--child", what, "--folder", str(folder)]
    result = subprocess.run(command + ["--quick"] * quick, capture_output=True, text=True)
    if result.returncode and what not in ENDED:
        sys.exit(f"{what} failed:\n{result.stderr[-3000:]}")
    return result.stdout


def compared(folder, quick):
    rows = []
    for i, case in enumerate(cases(quick)):
        runs = {name: read(folder / f"{i}-{name}.npz") for name in (1, "nudged", 2, 4, "worker0", "worker1")}
        alone = runs[1][0]
        differences = {
            "2 replicas": apart(alone, runs[2][0]),
            "4 replicas": apart(alone, runs[4][0]),
            "2 workers": max(apart(alone, runs[name][0]) for name in ("worker0", "worker1")),
        }
        histories = [runs[name][1] for name in ("worker0", "worker1")]
        rows.append(
            {
                **case,
                **differences,
                "limit": limit(case),
                "History equal in both workers": histories[0] == histories[1],
                "1 device, nudged": apart(alone, runs["nudged"][0]),
                "held": max(differences.values()) <= limit(case) and histories[0] == histories[1],
            }
        )
    return rows


def killed(folder, quick):
    seconds = {what: seconds_to_notice(child(what, folder, quick, workers=True)) for what in ENDED}
    child("resume", folder, quick, workers=True)
    i = cases(quick).index(KILLED)
    uninterrupted, history, _ = read(folder / f"{i}-worker0.npz")
    resumed, its_history, _ = read(folder / "resumed-0.npz")
    difference = apart(uninterrupted, resumed)
    return {
        "killed in": f"epoch {KILLED_AT[0] + 1}, after batch {KILLED_AT[1] + 1}",
        "seconds until the other worker's error": seconds["die"],
        "the same, a worker frozen": seconds["freeze the other"],
        "the same, the chief frozen": seconds["freeze the chief"],
        "resumed and uninterrupted weights differ by": difference,
        "History as uninterrupted": history == its_history,
        "held": all(taken is not None and taken <= SECONDS_TO_NOTICE for taken in seconds.values())
        and difference == 0.0
        and history == its_history,
    }


def seconds_to_notice(printed):
    times = [re.search(rf"{what} at ([\d.]+)", printed) for what in ("ended", "lost")]
    return round(float(times[1][1]) - float(times[0][1]), 2) if all(times) else None


def read(path):
    import numpy as np

    with np.load(path) as stored:
        weights = [stored[name] for name in stored.files if name.startswith("weight/")]
        return weights, json.loads(str(stored["history"])), float(stored["seconds"])


def apart(one, other):
    return max(float(abs(a - b).max()) for a, b in zip(one, other, strict=True))


def show(rows, kill):
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Largest difference in any weight from one device", title_justify="left")
    for column in ("model", "optimizer", "weights", "accumulation", "steps"):
        table.add_column(column)
    figures = ("2 replicas", "4 replicas", "2 workers", "1 device, nudged", "limit")
    for column in figures:
        table.add_column(column, justify="right")
    for row in rows:
        plain = ["yes" if row["weights"] else "no", str(row["accumulation"]), str(row["steps"])]
        printed = [f"{row[name]:.1e}" for name in figures]
        table.add_row(row["model"], row["optimizer"], *plain, *printed, style=None if row["held"] else "red")
    console = Console(width=120)
    console.print(table)
    for name, value in kill.items():
        console.print(f"{name}: {value}", highlight=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two combinations per model and optimizer")
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        CHILDREN[arguments.child](arguments.folder, arguments.quick)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for replicas in (1, 2, 4):
            child(f"{replicas} replicas", folder, arguments.quick)
        child("workers", folder, arguments.quick, workers=True)
        rows = compared(folder, arguments.quick)
        kill = killed(folder, arguments.quick)
    show(rows, kill)
    RESULTS.mkdir(exist_ok=True)
    content = {"quick": arguments.quick, "rows": rows, "kill": kill}
    (RESULTS / "replicas.json").write_text(json.dumps(content, indent=2))
    held = all(row["held"] for row in rows) and kill["held"]
    print("every limit held" if held else "A LIMIT WAS MISSED")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
