"""Models from `tfbig.models` beside the same ones written by hand in Keras, trained by the same `fit` in turn.

    python benchmarks/builders.py [--repetitions 21] [--models mlp "cnn, plain"] [--quick]

A builder must cost nothing: the same parameters, the same seconds to the end of the first epoch, which holds the
tracing, and the same rows per second after it. The presets' parameters are counted too. A ratio is the median over
the repetitions of what the hand-written model took to what the built one took; every other repetition begins with the
built one. Both train the same graph, so the ratio is 1 but for chance: on two cores single pairs scatter by 3 to 5%,
which is why there are 21 of them.
"""

import argparse
import gc
import json
import statistics
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import tfbig
from tfbig.backend import keras

L = keras.layers
ASKED = 0.98
TOKENS, STEPS = 64, 32


class AddPositions(L.Layer):
    def build(self, shape):
        self.table = self.add_weight(
            shape=shape[1:], initializer=keras.initializers.RandomNormal(stddev=0.02)
        )

    def call(self, inputs):
        return inputs + self.table


def mlp():
    return keras.Sequential([keras.Input((64,)), L.Dense(128, "relu"), L.Dense(64, "relu"), L.Dense(10)])


def cnn():
    layers = [keras.Input((8, 8, 1))]
    for filters in (32, 64):
        layers += [L.Conv2D(filters, 3, padding="same", activation="relu"), L.MaxPooling2D()]
    return keras.Sequential([*layers, L.Flatten(), L.Dense(64, "relu"), L.Dense(10)])


def normalized(x, filters, strides=1, side=3):
    x = L.Conv2D(filters, side, strides=strides, padding="same", use_bias=False)(x)
    return L.BatchNormalization()(x)


def residual():
    inputs = keras.Input((8, 8, 1))
    x = L.ReLU()(normalized(inputs, 16))
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        shortcut = x if strides == 1 else normalized(x, filters, strides, side=1)
        body = normalized(L.ReLU()(normalized(x, filters, strides)), filters)
        x = L.ReLU()(L.Add()([body, shortcut]))
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


def separable():
    inputs = keras.Input((8, 8, 1))
    x = L.ReLU()(normalized(inputs, 32))
    for filters, strides in ((32, 1), (64, 2), (128, 2)):
        x = L.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
        x = L.ReLU()(L.BatchNormalization()(x))
        x = L.ReLU()(normalized(x, filters, side=1))
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


def lstm():
    return keras.Sequential([keras.Input((8, 8)), L.LSTM(64), L.Dense(10)])


def blocks(x, causal, depth=2, heads=4):
    width = x.shape[-1]
    for _ in range(depth):
        normal = L.LayerNormalization(epsilon=1e-6)(x)
        x = L.Add()([x, L.MultiHeadAttention(heads, width // heads)(normal, normal, use_causal_mask=causal)])
        normal = L.LayerNormalization(epsilon=1e-6)(x)
        x = L.Add()([x, L.Dense(width)(L.Dense(4 * width, "gelu")(normal))])
    return L.LayerNormalization(epsilon=1e-6)(x)


def patches():
    inputs = keras.Input((8, 8, 1))
    x = AddPositions()(L.Reshape((16, 64))(L.Conv2D(64, 2, strides=2)(inputs)))
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling1D()(blocks(x, causal=False))))


def language():
    inputs = keras.Input((STEPS,), dtype="int32")
    x = blocks(AddPositions()(L.Embedding(TOKENS, 64)(inputs)), causal=True)
    return keras.Model(inputs, L.Dense(TOKENS)(x))


SMALL = {"depth": 2, "width": 64, "heads": 4}
LANGUAGE = {"task": "sequence", "causal": True, "vocabulary": TOKENS, **SMALL}
# By hand, by tfbig, and what they read.
CASES = {
    "mlp": (mlp, lambda: tfbig.models.mlp((64,), 10), "rows"),
    "cnn, plain": (cnn, lambda: tfbig.models.cnn((8, 8, 1), 10), "images"),
    "cnn, residual": (residual, lambda: tfbig.models.cnn((8, 8, 1), 10, variant="residual"), "images"),
    "cnn, separable": (separable, lambda: tfbig.models.cnn((8, 8, 1), 10, variant="separable"), "images"),
    "rnn, lstm": (lstm, lambda: tfbig.models.rnn((8, 8), 10), "lines"),
    "transformer, patches": (
        patches,
        lambda: tfbig.models.transformer((8, 8, 1), 10, patch_size=2, **SMALL),
        "images",
    ),
    "transformer, causal": (
        language,
        lambda: tfbig.models.transformer((STEPS,), TOKENS, **LANGUAGE),
        "texts",
    ),
}


def presets():
    """Parameters of each preset, for the shapes that the docstrings name."""
    sizes = ("tiny", "small", "base", "large")
    builders = {
        "mlp": (sizes, lambda preset: tfbig.models.mlp((64,), 10, preset=preset)),
        **{
            f"cnn, {variant}": (
                sizes,
                lambda preset, variant=variant: tfbig.models.cnn(
                    (32, 32, 3), 10, variant=variant, preset=preset
                ),
            )
            for variant in ("plain", "residual", "separable")
        },
        "rnn": (sizes, lambda preset: tfbig.models.rnn((32, 16), 10, preset=preset)),
        "transformer": (
            ("tiny", "mini", "small", "medium", "base"),
            lambda preset: tfbig.models.transformer((32, 16), 10, preset=preset),
        ),
    }
    return {
        name: {preset: build(preset).count_params() for preset in known}
        for name, (known, build) in builders.items()
    }


def measure(build, x, y, epochs):
    """Returns the model's parameters, the seconds to the end of the first epoch, and those of a later one."""
    keras.utils.set_random_seed(0)
    gc.collect()  # the model before belongs to the other side
    began = time.perf_counter()
    model = build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    run = tfbig.fit(model, x, y, loss=loss, metrics=["accuracy"], epochs=epochs, verbose=0)
    later = run.epoch_seconds[1:]
    return model.count_params(), time.perf_counter() - began - sum(later), statistics.median(later)


def compare(by_hand, built, x, y, epochs, repetitions):
    pairs = []
    for repetition in range(repetitions):
        order = (by_hand, built) if repetition % 2 == 0 else (built, by_hand)
        measured = {build: measure(build, x, y, epochs) for build in order}
        pairs.append((measured[by_hand], measured[built]))
    (hand_parameters, *_), (parameters, *_) = pairs[0]
    return {
        "parameters": parameters,
        "parameters_by_hand": hand_parameters,
        "first_epoch_seconds": round(statistics.median(ours[1] for _, ours in pairs), 3),
        "rows_per_second": round(len(x) / statistics.median(ours[2] for _, ours in pairs)),
        "first_epoch_ratio": round(statistics.median(hand[1] / ours[1] for hand, ours in pairs), 3),
        "ratio": round(statistics.median(hand[2] / ours[2] for hand, ours in pairs), 3),
        "ratios": [round(hand[2] / ours[2], 3) for hand, ours in pairs],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=21)
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--quick", action="store_true", help="one repetition of few epochs on few rows")
    options = parser.parse_args()
    rows, epochs, repetitions = (256, 3, 1) if options.quick else (1797, 8, options.repetitions)
    digits = tfbig.load_dataset("digits")
    images, labels = (digits.x / 16).astype("float32")[:rows], digits.y[:rows]
    texts = np.random.default_rng(0).integers(0, TOKENS, (rows, STEPS + 1))
    data = {
        "rows": (images.reshape(-1, 64), labels),
        "images": (images, labels),
        "lines": (images.reshape(-1, 8, 8), labels),
        "texts": (texts[:, :-1], texts[:, 1:]),
    }
    table = Table("model", "parameters", "first epoch, s", "ratio", "rows/s", "ratio", "asked")
    results = {"presets": presets(), "beside_by_hand": {}}
    missed = []
    measure(mlp, *data["rows"], 2)  # what a process does once, such as starting threads, is nobody's
    for name in options.models:
        by_hand, built, kind = CASES[name]
        result = compare(by_hand, built, *data[kind], epochs, repetitions)
        results["beside_by_hand"][name] = result
        table.add_row(
            name,
            f"{result['parameters']:,}",
            f"{result['first_epoch_seconds']:.2f}",
            f"{result['first_epoch_ratio']:.2f}",
            f"{result['rows_per_second']:,}",
            f"{result['ratio']:.2f}",
            f"≥ {ASKED}",
        )
        if result["parameters"] != result["parameters_by_hand"]:
            missed.append(f"{name}: not the same model")
        for ratio in ("first_epoch_ratio", "ratio"):
            if result[ratio] < ASKED:
                missed.append(f"{name}: {ratio} {result[ratio]}")
    console = Console()
    console.print(table)
    for name, counted in results["presets"].items():
        console.print(f"{name}: {', '.join(f'{preset} {count:,}' for preset, count in counted.items())}")
    target = Path(__file__).parent / "results" / ("builders_quick.json" if options.quick else "builders.json")
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n")
    return f"MISSED  {'; '.join(missed)}" if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
