"""Linear regression, 100 inputs to 100 outputs: by plain gradient descent, then by mini-batches.

A network without hidden layers is linear regression, and the answer is known: least squares gives the smallest loss
there is. Gradient descent sees all rows before each step; mini-batches take a step after every few rows, so they see
the data far fewer times, but each step is a guess, and only a falling learning rate lets the guesses come to rest.
"""

import keras
import numpy as np

import tfbig

generator = np.random.default_rng(0)
x = generator.normal(size=(1000, 100))
truth = generator.normal(size=(100, 100)) / 10
y = x @ truth + 0.1 * generator.normal(size=(1000, 100))


def build():
    return tfbig.models.mlp((100,), 100, task="regression", hidden=())


def train(epochs, batch_size, rate, **options):
    descent = keras.optimizers.SGD(rate)
    run = tfbig.fit(
        build,
        x,
        y,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=descent,
        loss="mse",
        seed=0,
        verbose=0,
        **options,
    )
    return np.mean((run.model.predict(x, verbose=0) - y) ** 2)


with_ones = np.column_stack([x, np.ones(len(x))])  # the ones are the bias
solution = np.linalg.lstsq(with_ones, y, rcond=None)[0]
optimum = np.mean((with_ones @ solution - y) ** 2)

# The loss is a mean over 100 outputs, so each weight's gradient is a hundredth of its own output's: rates are large.
runs = {
    "gradient descent": {"epochs": 40, "batch_size": 1000, "rate": 40.0},
    "mini-batches": {"epochs": 10, "batch_size": 50, "rate": 5.0},
    "mini-batches, falling rate": {"epochs": 10, "batch_size": 50, "rate": 5.0, "learning_rate": "cosine"},
}
print(f"{'':28}{'passes':>7}{'steps':>7}{'loss':>10}{'above optimum':>16}")
for name, options in runs.items():
    loss = train(**options)
    steps = options["epochs"] * 1000 // options["batch_size"]
    print(f"{name:28}{options['epochs']:7}{steps:7}{loss:10.6f}{loss / optimum - 1:16.2%}")
print(f"{'least squares':28}{'':14}{optimum:10.6f}")
