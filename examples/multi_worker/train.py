"""One script for one device, several GPUs or several machines: each worker runs it as it stands.

    python train.py                     one device, or all GPUs of this machine
    tfbig workers -n 2 train.py         two workers on this machine
    kubectl apply -f tfjob.yaml         Kubernetes
    sbatch slurm.sbatch                 Slurm

Kill any worker and start all of them again with the same line: the training goes on from its last checkpoint.
"""

import argparse
from pathlib import Path

import keras

import tfbig


def build():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.LayerNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )


parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument("--folder", type=Path, default=Path("run"), help="a folder that all workers see")
arguments = parser.parse_args()

# Joins the other workers, which TensorFlow does only before the first tensor is made.
tfbig.strategy()

# Every worker has all rows; tfbig deals them out.
data = tfbig.load_dataset("digits")
x_train, x_test, y_train, y_test = tfbig.split(data.x / 16, data.y, seed=0)

run = tfbig.fit(
    build,
    x_train,
    y_train,
    epochs=arguments.epochs,
    batch_size=64,  # of all workers together: the result is that of one device
    seed=0,
    checkpoint_dir=arguments.folder / "checkpoints",
    verbose=2 if tfbig.is_chief() else 0,
)

if tfbig.is_chief():
    tfbig.save_model(run.model, arguments.folder / "model.keras", overwrite=True)
    run.to_json(arguments.folder / "run.json")
    print(run.strategy)
    print("accuracy", round(tfbig.evaluate(run.model, x_test, y_test)["accuracy"], 3))
