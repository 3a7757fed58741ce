"""One regressor on random data, all the way: trained, evaluated, cross-validated, pruned, quantized.

What the data hides is known (8 of 20 columns matter, two of them as a product; the rest is noise), so is the best score
that is possible. Each line prints the R² of what a step made, on rows that no step has seen.
"""

import keras
import numpy as np

import tfbig

generator = np.random.default_rng(0)
x = generator.normal(size=(4000, 20))
signal = x[:, 0] + 2 * np.sin(2 * x[:, 1]) + x[:, 2] * x[:, 3] + x[:, 4:8].sum(axis=1)
y = signal + generator.normal(size=4000)  # noise of variance 1: nobody can foresee it
x_train, x_test, y_train, y_test = tfbig.split(x, y, seed=0)
best = 1 - 1 / np.var(y)


def build(x_train, y_train):
    """The normalizers, of inputs and of outputs, know the training rows alone and ship inside the model."""
    return tfbig.models.mlp(
        (20,),
        1,
        task="regression",
        hidden=(32, 16),
        l2=0.003,
        normalizer=tfbig.normalizer(x_train),
        denormalizer=tfbig.normalizer(y_train, invert=True),
    )


options = {"batch_size": 64, "seed": 0, "verbose": 0, "learning_rate": "cosine"}
options["optimizer"] = keras.optimizers.Adam(0.01)
model = tfbig.fit(build, x_train, y_train, epochs=20, **options).model
folds = tfbig.cross_validate(build, x_train, y_train, cv=5, epochs=20, **options)
thin = tfbig.prune(model, x_train, y_train, sparsity=0.7, epochs=20, **options)
rounded = tfbig.quantize_aware(thin, x_train, y_train, epochs=5, **options)
files = {
    "float32 file": tfbig.export(model, "savedmodels/regressor.tflite", overwrite=True),
    "pruned int8 file": tfbig.export(
        rounded, "savedmodels/regressor_int8.tflite", quantize="int8", overwrite=True
    ),
}

print(f"best possible      R² {best:.3f}")
print(f"5 folds            R² {folds.mean['r2']:.3f} ± {folds.std['r2']:.3f}")
for name, made in {"trained": model, "pruned to 70%": thin, "rounded to 8 bits": rounded, **files}.items():
    size = f", {made.report.gzip_bytes:,} bytes gzipped" if name in files else ""
    print(f"{name:18} R² {tfbig.evaluate(made, x_test, y_test)['r2']:.3f}{size}")
