"""Trains a table of cases on one device and on 2 and 4 replicas, in one process of 4 logical CPUs.

    python on_replicas.py weights.npz histories.json facts.json

Then does what is no comparison of weights, and notes what it saw. `test_replicas.py` runs it once and compares what it
saved.
"""

import functools
import json
import os
import sys

ROWS, BATCH = (
    199,
    33,
)  # every batch is uneven, over 2 and over 4; the last is one row, fewer than the replicas
REPLICAS = (1, 2, 4)


def images():
    import tfbig

    data = tfbig.load_dataset("digits")
    return data.x.astype("float32") / 16, data.y


def mlp(keras, **options):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(16, "relu", kernel_regularizer=keras.regularizers.L2(1e-2), **options),
            layers.LayerNormalization(),
            layers.Dense(10, name="logits"),
        ]
    )


def cnn(keras, normalization, first=()):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(6, 3, strides=2, use_bias=False),
            normalization(),
            layers.ReLU(),
            *first,
            layers.Flatten(),
            layers.Dense(10, name="logits"),
        ]
    )


def sequences(keras):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(9, 5, mask_zero=True),
            layers.LSTM(6, return_sequences=True),
            layers.Dense(3),
        ]
    )


def cases(keras, tf, np, tfbig):
    """Name to a function that returns fit's positional arguments and options, all made anew."""
    x, y = images()
    weights = np.random.default_rng(0).uniform(size=ROWS).astype("float32")
    train, valid = (x[:ROWS], y[:ROWS]), (x[ROWS : ROWS + 50], y[ROWS : ROWS + 50])
    optimizers, losses, layers = keras.optimizers, keras.losses, keras.layers
    entropy = losses.SparseCategoricalCrossentropy

    def norm():
        return layers.LayerNormalization()

    def regularized():
        model = mlp(keras, activity_regularizer=keras.regularizers.L2(1e-3))
        return (model, *train), {"optimizer": optimizers.SGD(0.1), "validation_data": valid}

    def one_step_at_a_time():
        arguments, options = regularized()
        return arguments, {**options, "steps_per_execution": 1}

    def weighted():
        options = {"optimizer": optimizers.Adam(0.003), "sample_weight": weights}
        return (cnn(keras, norm), *train), {**options, "validation_data": (*valid, weights[:50])}

    def batch_norm():
        model = cnn(keras, layers.BatchNormalization)
        return (model, *train), {"optimizer": optimizers.SGD(0.1), "validation_data": valid}

    def accumulated():
        options = {"optimizer": optimizers.Adam(0.003, clipnorm=0.2), "gradient_accumulation": 4}
        return (mlp(keras), *train), {**options, "class_weight": {i: 1 + i / 3 for i in range(10)}}

    def averaged():
        optimizer = optimizers.SGD(0.1, 0.9, global_clipnorm=0.5, use_ema=True, ema_overwrite_frequency=3)
        return (mlp(keras), *train), {"optimizer": optimizer, "gradient_accumulation": 1}

    def scaled():
        rate = optimizers.schedules.CosineDecay(0.01, 12)
        optimizer = optimizers.LossScaleOptimizer(optimizers.AdamW(rate, weight_decay=0.1))
        return (mlp(keras), *train), {"optimizer": optimizer}

    def nadam():
        return (mlp(keras), *train), {"optimizer": optimizers.Nadam(0.003)}

    def masked():
        generator = np.random.default_rng(1)
        tokens = generator.integers(1, 9, (ROWS, 6))
        tokens[np.arange(6) >= generator.integers(1, 7, (ROWS, 1))] = 0  # padded to 6 from lengths 1 to 6
        options = {"loss": entropy(from_logits=True), "metrics": ["accuracy"]}
        return (sequences(keras), tokens.astype("int32"), tokens % 3), {
            **options,
            "optimizer": optimizers.SGD(0.5),
        }

    def summed():
        loss = entropy(from_logits=True, reduction="sum")
        options = {"loss": loss, "optimizer": optimizers.SGD(0.003), "sample_weight": weights}
        return (mlp(keras), *train), {**options, "metrics": ["accuracy"]}

    def mean_of_weights():
        loss = entropy(from_logits=True, reduction="mean_with_sample_weight")
        options = {"loss": loss, "optimizer": optimizers.SGD(0.1), "sample_weight": weights}
        return (mlp(keras), *train), {**options, "metrics": ["accuracy"]}

    def one_number():
        """Means over a batch, and the same weighted; each batch counts alike, also the last one, of one row."""

        def part_right(y, p):
            right = tf.equal(tf.reshape(tf.cast(y, "int64"), [-1]), tf.argmax(p, axis=-1))
            return tf.reduce_mean(tf.cast(right, "float32"))

        def meanLogit(y, p):  # Keras's way with names is in it
            return tf.reduce_mean(p)

        model = mlp(keras)
        model.compile(
            optimizers.SGD(0.1),
            entropy(from_logits=True),
            metrics=[part_right, meanLogit],
            weighted_metrics=[functools.partial(part_right)],
        )
        return (model, *train), {"validation_data": valid}

    def area():
        model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(1, "sigmoid")])
        labels = (train[1] % 2, valid[1] % 2)
        options = {"metrics": [keras.metrics.AUC(name="auc"), keras.metrics.Precision(name="precision")]}
        options |= {"optimizer": optimizers.SGD(0.1), "validation_data": (valid[0], labels[1])}
        return (model, train[0], labels[0]), options

    def two_outputs_of_a_stream():
        inputs = keras.Input((8, 8, 1))
        hidden = layers.Dense(8, "relu")(layers.Flatten()(inputs))
        outputs = {
            "digit": layers.Dense(10, name="digit")(hidden),
            "odd": layers.Dense(1, name="odd")(hidden),
        }
        model = keras.Model(inputs, outputs)
        model.compile(
            optimizers.SGD(0.1),
            {"digit": entropy(from_logits=True), "odd": losses.BinaryCrossentropy(from_logits=True)},
            loss_weights={"digit": 0.3, "odd": 2.0},
            metrics={"digit": ["accuracy"], "odd": ["mae"]},
        )
        odd = (train[1] % 2).astype("float32")[:, None]
        rows = tf.data.Dataset.from_tensor_slices((train[0], {"digit": train[1], "odd": odd}))
        return (model, rows.batch(BATCH)), {"validation_data": rows.take(50).batch(BATCH)}

    def best_weights():
        stop = keras.callbacks.EarlyStopping("val_loss", patience=2, min_delta=0.5, restore_best_weights=True)
        slower = keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, factor=0.1, min_delta=0.5)
        options = {"optimizer": optimizers.SGD(0.7), "callbacks": [slower, stop], "epochs": 6}
        return (mlp(keras), *train), {**options, "validation_data": valid}

    def pruned():
        options = {"optimizer": optimizers.SGD(0.1), "callbacks": [tfbig.Prune(0.75)], "epochs": 3}
        return (mlp(keras), *train), options

    def unbuilt():
        model = keras.Sequential([layers.Flatten(), layers.Dense(8, "relu"), layers.Dense(10)])
        options = {
            "loss": entropy(from_logits=True),
            "optimizer": optimizers.SGD(0.1),
            "metrics": ["accuracy"],
        }
        return (model, *train), options

    def fewer_rows_than_replicas():
        return (mlp(keras), train[0][:1], train[1][:1]), {"optimizer": optimizers.SGD(0.1)}

    made = locals()
    return {name: made[name] for name in NAMES}


NAMES = (
    "regularized",
    "one_step_at_a_time",
    "weighted",
    "batch_norm",
    "accumulated",
    "averaged",
    "scaled",
    "nadam",
    "masked",
    "summed",
    "mean_of_weights",
    "one_number",
    "area",
    "two_outputs_of_a_stream",
    "best_weights",
    "pruned",
    "unbuilt",
    "fewer_rows_than_replicas",
)
# 4 replicas take twice as long to trace as 2: there, the cases in which the number matters.
WITH_4 = ("regularized", "batch_norm", "accumulated", "summed", "one_number", "fewer_rows_than_replicas")


def counts(name):
    return REPLICAS if name in WITH_4 else REPLICAS[:2]


def facts(keras, tf, np, tfbig, folder):
    """Name to what was seen when 2 replicas did it, or to the error."""
    x, y = (part[:BATCH] for part in images())
    losses, layers = keras.losses, keras.layers

    def fit(model, **options):
        return tfbig.fit(model, x, y, **{"strategy": 2, "epochs": 1, "seed": 0, "verbose": 0, **options})

    def begun(callback_of):
        seen = []

        class Noting(keras.callbacks.Callback):
            def on_train_begin(self, logs=None):
                seen.append(callback_of(self.model))

        return seen, Noting()

    def mean_of_all(y, p):
        return tf.reduce_mean(tf.square(tf.one_hot(tf.cast(y, "int32"), 10) - p))

    def scalar_loss():
        seen, noting = begun(lambda model: "training began")
        try:
            fit(mlp(keras), loss=mean_of_all, callbacks=[noting])
        finally:
            assert not seen

    def dice_loss():
        labels = np.eye(10, dtype="float32")[y]
        model = keras.Sequential([mlp(keras), layers.Softmax()])
        return tfbig.fit(model, x, labels, loss=losses.Dice(), strategy=2, epochs=1, verbose=0)

    class AddsEach(layers.Layer):
        def call(self, values):
            self.add_loss(tf.reduce_sum(tf.square(values), axis=1))
            return values

    def added_values():
        return fit(
            keras.Sequential(
                [keras.Input((8, 8, 1)), layers.Flatten(), AddsEach(), layers.Dense(10, name="logits")]
            )
        )

    def precision_of_a_builder():
        seen, noting = begun(lambda model: [layer.compute_dtype for layer in model.layers])
        run = fit(lambda: mlp(keras), precision="mixed_bfloat16", callbacks=[noting])
        return [*seen, [layer.compute_dtype for layer in run.model.layers]]

    def dropout_masks():
        model = keras.Sequential(
            [
                keras.Input((64,)),
                layers.Dropout(0.5),
                layers.Dense(2, use_bias=False, kernel_initializer="zeros"),
            ]
        )
        ones, kept = np.ones((2, 64), "float32"), {}
        options = {"loss": "mse", "optimizer": keras.optimizers.SGD(1.0), "shuffle": False, "metrics": []}
        for strategy in (None, 2):
            # Row i is replica i's, and moves column i of the kernel where its mask lets values through.
            run = tfbig.fit(model, ones, np.eye(2), strategy=strategy, epochs=1, seed=0, verbose=0, **options)
            kept[str(strategy)] = (run.model.layers[-1].kernel.numpy() != 0).T.tolist()
            kept[f"state {strategy}"] = model.non_trainable_variables[0].numpy().tolist()
            model.layers[-1].kernel.assign(np.zeros((64, 2)))
        return kept

    def saved_by_a_callback():
        path = os.path.join(folder, "saved.keras")
        model = mlp(keras)
        run = fit(model, callbacks=[keras.callbacks.ModelCheckpoint(path)])
        loaded = keras.models.load_model(path)
        return [
            type(loaded.loss).__name__,
            loaded.evaluate(x, y, verbose=0, return_dict=True)["loss"],
            run.model.evaluate(x, y, verbose=0, return_dict=True)["loss"],
        ]

    def scaled_by_the_user():
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, 0.9))
        model = fit(mlp(keras), optimizer=optimizer, precision="mixed_float16", batch_size=11).model
        fit(model, precision="mixed_float16", batch_size=11)
        inner = model.optimizer.inner_optimizer
        return [int(inner.iterations), float(np.abs(inner.momentums[0].numpy()).max())]

    def root_of_a_mean():
        def root(y, p):
            return tf.sqrt(tf.reduce_mean(tf.square(y - p)))

        rows = np.arange(4, dtype="float32")[:, None]
        made = keras.Sequential([keras.Input((1,)), layers.Dense(1, kernel_initializer="zeros")])
        options = {"metrics": [root, keras.metrics.RootMeanSquaredError(name="kept")]}
        options |= {"loss": "mse", "optimizer": keras.optimizers.SGD(0.0)}
        run = tfbig.fit(made, rows, rows, strategy=2, shuffle=False, epochs=1, verbose=0, **options)
        return [run.history[name][0] for name in ("root", "kept")]

    def eagerly():
        model = mlp(keras)
        model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
        return fit(model)

    def jit_compiled():
        return fit(mlp(keras), jit_compile=True)

    made = locals()
    found = {}
    for name in FACTS:
        try:
            found[name] = made[name]()
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


FACTS = (
    "scalar_loss",
    "dice_loss",
    "added_values",
    "precision_of_a_builder",
    "dropout_masks",
    "saved_by_a_callback",
    "scaled_by_the_user",
    "root_of_a_mean",
    "eagerly",
    "jit_compiled",
)


def main(weights_path, histories_path, facts_path):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import numpy as np
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * max(REPLICAS))
    import keras

    import tfbig

    only = os.environ.get("TFBIG_TEST_CASES", "").split()  # some cases alone, to look at one that fails
    weights, histories = {}, {}
    for name, case in cases(keras, tf, np, tfbig).items():
        if only and name not in only:
            continue
        for replicas in counts(name):
            keras.utils.set_random_seed(0)
            arguments, options = case()
            options = {"epochs": 2, "batch_size": BATCH, "seed": 0, "verbose": 0, **options}
            try:
                run = tfbig.fit(*arguments, strategy=replicas, **options)
            except Exception as error:  # told by the test of this case; the others go on
                histories[f"{name} {replicas}"] = f"{type(error).__name__}: {error}"[:2000]
                continue
            histories[f"{name} {replicas}"] = run.history | {"strategy": run.strategy}
            for i, value in enumerate(run.model.get_weights()):
                weights[f"{name} {replicas} {i}"] = value
    np.savez(weights_path, **weights)
    with open(histories_path, "w") as file:
        json.dump(histories, file, default=float)
    with open(facts_path, "w") as file:
        found = {} if only else facts(keras, tf, np, tfbig, os.path.dirname(facts_path))
        json.dump(found, file, default=str)


if __name__ == "__main__":
    main(*sys.argv[1:])
