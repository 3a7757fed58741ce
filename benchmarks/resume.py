"""Killing a training at random moments, and damaging its checkpoints: what the started-again one ends with.

    python benchmarks/resume.py [--kills 30] [--damages 10]

A small convolutional network with dropout, early stopping and a falling learning rate trains on digits in a
process of its own, with a checkpoint every 7 steps. One run is left alone. Others are started on one folder again and
again, each killed by SIGKILL at a random moment after it wrote a checkpoint or, one time in four, after it was
started. After every kill a copy of the folder is trained to its end. Then a training is killed so many times with
its newest checkpoint damaged after each. Every ending must have the same weights, optimizer state and history as the
run that was left alone, bit for bit. Prints counts and writes benchmarks/results/resume.json.

Exits with 1 if an ending differs, or if a damaged checkpoint was used or went unmentioned.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
KILLS_PER_ROUND = 6

TRAINING = """
import hashlib, json, sys
import keras, tfbig

digits = tfbig.load_dataset("digits")
x, y = digits.x / 16, digits.y

def build():
    layers = keras.layers
    return keras.Sequential([
        keras.Input((8, 8, 1)), layers.Conv2D(16, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU(),
        layers.Dropout(0.3), layers.Flatten(), layers.Dense(64, "relu"), layers.Dropout(0.3), layers.Dense(10),
    ])

run = tfbig.fit(
    build, x[:1400], y[:1400], epochs=30, batch_size=32, seed=1, verbose=0, validation_data=(x[1400:], y[1400:]),
    callbacks=[
        keras.callbacks.EarlyStopping("val_loss", patience=4, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, min_delta=1e-2),
    ],
    checkpoint_dir=sys.argv[1], checkpoint_every=7,
)

def digest(values):
    return hashlib.sha256(b"".join(values)).hexdigest()

print(json.dumps({
    "weights": digest(w.tobytes() for w in run.model.get_weights()),
    "optimizer": digest(v.numpy().tobytes() for v in run.model.optimizer.variables),
    "history": run.history,
}))
"""


def started(folder):
    return subprocess.Popen(
        [sys.executable, "-W", "always", "-c", TRAINING, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )


def ended(process):
    """(what the training ended with, what it said)."""
    out, err = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"A training failed:\n{err[-3000:]}")
    return json.loads(out.splitlines()[-1]), err


def checkpoints(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("step-*.npz")}


def killed(folder, chance, soon):
    """Starts a training and kills it; (whether it was still running, what it said)."""
    before, process = checkpoints(folder), started(folder)
    while not soon and process.poll() is None and not checkpoints(folder).keys() - before.keys():
        time.sleep(0.005)
    time.sleep(chance.uniform(0, 8 if soon else 0.5))
    process.send_signal(signal.SIGKILL)
    _, err = process.communicate()
    return process.returncode == -signal.SIGKILL, err


def truncate(path, chance):
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def flip(path, chance):
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def empty(path, chance):
    path.write_bytes(b"")


def garble(path, chance):
    path.write_bytes(chance.randbytes(path.stat().st_size))


def replace_by_a_folder(path, chance):
    path.unlink()
    path.mkdir()


DAMAGES = (truncate, flip, empty, garble, replace_by_a_folder)
# More would outlast the training.
DAMAGES_PER_ROUND = 2


def damaged(folder, chance, kinds):
    """Damages a training's newest checkpoint and lets it go on, once for each kind.

    Returns (how many were mentioned, its ending), or None where it ended before it could be killed so often.
    """
    mentioned, spoilt = 0, None
    for kind in kinds:
        while len(checkpoints(folder)) < 2 or spoilt is not None:
            hit, said = killed(folder, chance, soon=False)
            mentioned += spoilt is not None and spoilt in said
            spoilt = None
            if not hit:
                return None
        newest = max(folder.glob("step-*.npz"), key=lambda path: path.stat().st_mtime_ns)
        kind(newest, chance)
        spoilt = newest.name
    ending, said = ended(started(folder))
    return mentioned + (spoilt in said), ending


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--damages", type=int, default=10)
    asked = parser.parse_args()
    chance = random.Random(0)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        alone, _ = ended(started(Path(temporary, "alone")))
        print(
            f"left alone: {len(alone['history']['loss'])} epochs, weights {alone['weights'][:16]}", flush=True
        )

        kills, rounds, same = 0, 0, 0
        while kills < asked.kills:
            folder = Path(temporary, f"round-{rounds}")
            folder.mkdir()
            for _ in range(min(KILLS_PER_ROUND, asked.kills - kills)):
                hit, _ = killed(folder, chance, soon=chance.random() < 0.25)
                if not hit:
                    break  # it had ended before
                kills += 1
                copy = shutil.copytree(folder, Path(temporary, f"killed-{kills}"))
                ending, _ = ended(started(copy))
                same += ending == alone
                print(f"{kills} kills, {same} endings the same", flush=True)
            rounds += 1

        damages, mentioned, survived, folders = 0, 0, True, 0
        while damages < asked.damages:
            folder = Path(temporary, f"damaged-{folders}")
            folder.mkdir()
            count = min(DAMAGES_PER_ROUND, asked.damages - damages)
            kinds = [DAMAGES[(damages + i) % len(DAMAGES)] for i in range(count)]
            folders, outcome = folders + 1, damaged(folder, chance, kinds)
            if outcome is None:
                continue  # it had ended before; once more
            mentioned, damages, ending = mentioned + outcome[0], damages + count, outcome[1]
            survived = survived and ending == alone
            print(
                f"{damages} damaged checkpoints, {mentioned} mentioned; all endings the same: {survived}",
                flush=True,
            )

    results = {
        "epochs": len(alone["history"]["loss"]),
        "kills": kills,
        "the same": same,
        "damaged checkpoints": damages,
        "mentioned": mentioned,
        "the same after damage": survived,
        "seconds": time.perf_counter() - began,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "resume.json").write_text(json.dumps(results, indent=2))
    limits = {
        "every ending is the one of the run left alone": same == kills,
        "damaged checkpoints are passed over and mentioned": survived and mentioned == damages,
    }
    for limit, held in limits.items():
        print(f"{'held  ' if held else 'MISSED'}  {limit}")
    return 0 if all(limits.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
