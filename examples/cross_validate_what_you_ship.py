"""K-fold of the float model and, fold by fold, of the int8 file that would be shipped."""

import tempfile
from pathlib import Path

import numpy as np

import tfbig

data = tfbig.load_dataset("wine")
folder = Path(tempfile.mkdtemp())


def build(x_train):
    """Called anew for each fold with its training rows alone, so the normalizer never sees a held-out one."""
    return tfbig.models.mlp((13,), 3, hidden=(32,), normalizer=tfbig.normalizer(x_train))


def finish(model, x_train, y_train):
    """What happens to a model before it is shipped; what comes back is scored on the held-out rows."""
    thin = tfbig.prune(model, x_train, y_train, sparsity=0.5, epochs=10, batch_size=16, verbose=0)
    return tfbig.export(thin, folder / "fold.tflite", quantize="int8", calibration=x_train, overwrite=True)


cv = tfbig.cross_validate(build, data.x, data.y, cv=10, finish=finish, epochs=30, batch_size=16, seed=0)
print(cv.summary())
shipped = cv.finished_scores["accuracy"]
print(f"as int8 files: accuracy {np.mean(shipped):.4f} ± {np.std(shipped, ddof=1):.4f}")
