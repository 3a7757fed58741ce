"""A binary classifier from a raw table: clean, transform, normalize, build, train, evaluate, predict.

The table is as tables are: text, dates, gaps, a category given as numbers, a column that never changes, rows twice.
Everything that is learned from data (medians, categories, scales) is learned from training rows only. What a network
needs of it becomes its first layer, so that the file to be shipped takes rows with their gaps and units as they are.
"""

import numpy as np
import pandas as pd

import tfbig

generator = np.random.default_rng(0)
rows = 3000
table = pd.DataFrame(
    {
        "plan": generator.choice(["basic", "family", "business"], rows, p=[0.5, 0.3, 0.2]),
        "since": pd.Timestamp("2024-01-01") - pd.to_timedelta(generator.integers(1, 2000, rows), "D"),
        "region": generator.choice([10, 20, 30], rows),  # a name, not a quantity
        "income": generator.lognormal(10, 0.5, rows).round(-2),
        "calls": generator.poisson(2, rows).astype(float),
        "currency": "EUR",
    }
)
days = (pd.Timestamp("2024-01-01") - table["since"]).dt.days
score = (
    1.2 * table["calls"] - days / 400 - 2.0 * (table["plan"] == "business") + 1.5 * (table["region"] == 20)
)
left = np.where(score + generator.logistic(size=rows) > 0.5, "left", "kept")
# People leave gaps: incomes at random, calls where there were none.
table.loc[generator.random(rows) < 0.2, "income"] = np.nan
table.loc[(table["calls"] == 0) & (generator.random(rows) < 0.7), "calls"] = np.nan
table, left = pd.concat([table, table[:100]]), np.concatenate([left, left[:100]])  # sent twice
print(table.head(4).to_string(index=False), "\n")

# Duplicates go first: a row that is in both parts would be known already when it is tested.
unique = ~table.duplicated().to_numpy()
raw_train, raw_test, left_train, left_test = tfbig.split(table[unique], left[unique], seed=0)
x_train, y_train, report = tfbig.clean(
    raw_train, left_train, missing="keep", duplicates="keep", constant="drop", categories=["region"]
)
x_test, y_test, _ = tfbig.clean(raw_test, left_test, missing="keep", duplicates="keep", steps=report.steps)
print(report)


def build(x_train):
    """The encoder scales numbers, fills gaps (and tells the network so) and spreads out categories."""
    encoder = tfbig.encoder(x_train, categories=report.steps.categories)
    return tfbig.models.mlp(
        x_train.shape[1:], 1, task="binary", hidden=(32,), dropout=0.2, normalizer=encoder
    )


run = tfbig.fit(build, x_train, y_train, validation_data=(x_test, y_test), epochs=20, seed=0, verbose=0)
print(tfbig.evaluate(run.model, x_test, y_test, bootstrap=200))

lite = tfbig.export(run.model, "savedmodels/leaving.tflite", overwrite=True)
newcomer = pd.DataFrame(
    {
        "plan": ["basic"],
        "since": ["2023-11-20"],
        "region": [20],
        "income": [None],
        "calls": [6],
        "currency": ["EUR"],
    }
)
logit = lite.predict(report.steps.transform(newcomer)).item()
print(f"a new row, by the file: P({report.classes[1]}) = {1 / (1 + np.exp(-logit)):.2f}")
