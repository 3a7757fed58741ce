"""The contract that every builder and variant meets: what a row of its table is, and how each promise is checked.

`test_contract.py` runs it as tests, `benchmarks/contract_table.py` prints it as a table. Run as a script,
`contract.py answers.json`, it trains each row on two replicas: logical devices are made before TensorFlow starts, so
that takes a process of its own.
"""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np

import tfbig

ROWS, STEPS, TOKENS, CLASSES = 64, 8, 12, 3


def numbers(*shape):
    return np.random.default_rng(0).normal(size=(ROWS, *shape)).astype(np.float32)


def tokens(*, smallest=0):
    return np.random.default_rng(0).integers(smallest, TOKENS, (ROWS, STEPS)).astype(np.int32)


def labels(*shape, classes=CLASSES):
    return np.random.default_rng(1).integers(0, classes, (ROWS, *shape))


# Name: the builder, its arguments, x and y.
IMAGES, SERIES = (8, 8, 2), (STEPS, 2)
SMALL = {"depth": 1, "width": 8}
TABLE = {
    "mlp": ("mlp", (6, CLASSES), {"hidden": (8,), "norm": "layer", "dropout": 0.1}, numbers(6), labels()),
    "mlp, group norm": ("mlp", (6, CLASSES), {"hidden": (8,), "norm": "group"}, numbers(6), labels()),
    "cnn": (
        "cnn",
        (IMAGES, CLASSES),
        {"filters": (4,), "dense": (8,), "batch_norm": True, "dropout": 0.1},
        numbers(*IMAGES),
        labels(),
    ),
    "cnn residual": (
        "cnn",
        (SERIES, CLASSES),
        {"variant": "residual", "filters": (4, 8)},
        numbers(*SERIES),
        labels(),
    ),
    "cnn separable": (
        "cnn",
        (IMAGES, CLASSES),
        {"variant": "separable", "filters": (4, 8)},
        numbers(*IMAGES),
        labels(),
    ),
    "rnn lstm": ("rnn", (SERIES, CLASSES), {"units": (4, 4), "norm": "layer"}, numbers(*SERIES), labels()),
    "rnn gru, bidirectional, padded tokens": (
        "rnn",
        ((STEPS,), CLASSES),
        {
            "task": "sequence",
            "cell": "gru",
            "bidirectional": True,
            "units": (4,),
            "vocabulary": TOKENS,
            "embedding": 4,
            "padding": 0,
        },
        tokens(),
        labels(STEPS),
    ),
    "transformer, padded tokens": (
        "transformer",
        ((STEPS,), CLASSES),
        {"vocabulary": TOKENS, "padding": 0, **SMALL},
        tokens(),
        labels(),
    ),
    "transformer, features": (
        "transformer",
        (SERIES, CLASSES),
        {"positions": "sinusoidal", "norm": "batch", "dropout": 0.1, **SMALL},
        numbers(*SERIES),
        labels(),
    ),
    "transformer, patches": (
        "transformer",
        (IMAGES, CLASSES),
        {"patch_size": 4, **SMALL},
        numbers(*IMAGES),
        labels(),
    ),
    "transformer, causal": (
        "transformer",
        ((STEPS,), TOKENS),
        {"task": "sequence", "vocabulary": TOKENS, "causal": True, **SMALL},
        tokens(smallest=1),
        labels(STEPS, classes=TOKENS),
    ),
}
# (promise, row) to why it is not kept yet. A gap that closes fails its test, so that it is taken out here.
GAPS: dict[tuple[str, str], str] = {}


def build(name):
    """Returns the model of a row, its x and its y."""
    builder, arguments, options, x, y = TABLE[name]
    return getattr(tfbig.models, builder)(*arguments, **options), x, y


def training(**options):
    """The options of a short training."""
    return {"optimizer": "sgd", "epochs": 1, "batch_size": ROWS, "seed": 0, "verbose": 0, **options}


@contextlib.contextmanager
def step_by_step():
    """Runs TensorFlow's functions op by op: tracing one takes longer than a step of these models."""
    from tfbig.backend import tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def saved(model, x, y, folder):
    """It gives the same answers after saving and loading."""
    again = tfbig.load_model(tfbig.save_model(model, folder / "model.keras", overwrite=True))
    np.testing.assert_array_equal(again.predict_on_batch(x), model.predict_on_batch(x))
    assert again.layers[-1].name == model.layers[-1].name
    return "same answers"


def pruned(model, x, y, folder):
    """Pruning reaches the sparsity in every layer."""
    thin = tfbig.sparsity(tfbig.prune(model, x, y, sparsity=0.5, **training(batch_size=ROWS // 4)))
    for layer in thin.layers:
        # Of an odd number of weights, one more or less.
        assert abs(layer.sparsity - 0.5) <= 0.51 / layer.weights, layer
    return f"{thin.overall:.1%} zeros"


def rounded(model, x, y, folder):
    """It trains through rounding; what stays in float is said, with the reason."""
    with step_by_step():
        small = tfbig.quantize_aware(model, x, y, **training())
    report = tfbig.quantization(small)
    assert "Dense" in {layer.kind for layer in report.layers}
    assert small.output_shape == model.output_shape
    in_float = {_kind(small, name): why for name, why in report.in_float.items()}
    notes = [f"{kind} in float: {why}" for kind, why in in_float.items()]
    return "\n".join([f"{len(report.layers)} in 8 bits", *notes])


def in_float32(model, x, y, folder):
    """Its float32 file gives its answers."""
    lite = tfbig.export(model, folder / "model.tflite", calibration=x, overwrite=True)
    apart = np.abs(lite.predict(x) - model.predict_on_batch(x)).max()
    # Sums in another order, of float32 numbers around 1.
    assert apart <= 1e-5, apart
    return f"error {apart:.0e}"


def in_int8(model, x, y, folder):
    """Its int8 file gives its answers."""
    lite = tfbig.export(model, folder / "model.tflite", quantize="int8", calibration=x, overwrite=True)
    error = lite.report.proof.mean_error
    # Half of what the proof allows, which lets some wrong answers through where most are right.
    assert error < 0.025, error
    return f"error {error:.2%}"


# Each returns what the table shows, or raises what was wrong. The replicas' is `on_replicas`.
PROMISES = {
    "saved": saved,
    "pruned": pruned,
    "rounded": rounded,
    "float32": in_float32,
    "int8": in_int8,
}


def on_replicas(name, moved, apart):
    """Two replicas train it as one device does; from what `main` wrote of the row."""
    # Dropout: each replica draws values of its own. Else gradients are summed in another order, in float32.
    assert moved > 1e-4, (name, moved)
    assert apart < (moved if "dropout" in TABLE[name][2] else moved / 100), (name, apart, moved)
    return f"{apart / moved:.0e} of a step apart" + " (dropout)" * ("dropout" in TABLE[name][2])


def main(path):
    """Writes, for each row, the furthest that a weight moved in one step, and from one device to two replicas."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    import keras

    answers = {}
    for name in TABLE:
        weights = []
        for strategy in (None, 1, 2):
            keras.utils.set_random_seed(0)
            model, x, y = build(name)
            if strategy is not None:
                model = tfbig.fit(model, x, y, strategy=strategy, **training()).model
            weights.append(np.concatenate([w.ravel() for w in model.get_weights()]))
        before, alone, both = weights
        answers[name] = [float(np.abs(alone - before).max()), float(np.abs(both - alone).max())]
    Path(path).write_text(json.dumps(answers))


def _kind(model, name):
    return next((type(layer).__name__ for layer in model.layers if layer.name == name), name)


if __name__ == "__main__":
    main(sys.argv[1])
