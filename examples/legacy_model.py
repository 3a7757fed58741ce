"""A model from the days of Keras 2 is brought over: loaded, proven the same, trained on, exported.

`load_model` reads the old file in a process of its own, builds the model anew of Keras 3's layers, and returns it only
if it gives the old model's answers. Here a child process plays the past: it trains with tf_keras and saves an .h5 file.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import tfbig

THE_PAST = """
import sys
import numpy as np
import tf_keras
from sklearn.datasets import load_digits

tf_keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
model = tf_keras.Sequential([
    tf_keras.Input((64,)),
    tf_keras.layers.Dense(32, activation="relu"),
    tf_keras.layers.BatchNormalization(),
    tf_keras.layers.Dense(10, activation="softmax"),
])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x[:300] / 16, y[:300], epochs=30, verbose=0)  # there was little data then
model.save(sys.argv[1], save_format="h5")
np.save(sys.argv[2], model.predict(x[:100] / 16, verbose=0))
"""

with tempfile.TemporaryDirectory() as folder:
    old, answers = Path(folder, "old.h5"), Path(folder, "answers.npy")
    subprocess.run([sys.executable, "-c", THE_PAST, old, answers], check=True, capture_output=True)
    model, expected = tfbig.load_model(old), np.load(answers)

data = tfbig.load_dataset("digits")
x = data.x.reshape(-1, 64) / 16
same = np.abs(model.predict(x[:100], verbose=0) - expected).max()
print(
    f"{type(model).__module__.split('.')[0]} {model.name}: answers differ from the old model's by at most {same:.0e}"
)

x_train, x_test, y_train, y_test = tfbig.split(x[300:], data.y[300:], seed=0)
before = tfbig.evaluate(model, x_test, y_test)["accuracy"]
tfbig.fit(model, x_train, y_train, epochs=15, seed=0, verbose=0)
lite = tfbig.export(
    model, "savedmodels/brought_over.tflite", quantize="int8", calibration=x_train, overwrite=True
)
print(
    f"accuracy  as it came {before:.3f}  trained on {tfbig.evaluate(model, x_test, y_test)['accuracy']:.3f}",
    end="  ",
)
print(f"as an int8 file {tfbig.evaluate(lite, x_test, y_test)['accuracy']:.3f}")
