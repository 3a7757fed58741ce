"""An int8 file used from plain Python: the process that predicts never loads TensorFlow."""

import subprocess
import sys

import tfbig

data = tfbig.load_dataset("iris")


def build(x_train):
    return tfbig.models.mlp((4,), 3, hidden=(16,), normalizer=tfbig.normalizer(x_train))


model = tfbig.fit(build, data.x, data.y, epochs=30, seed=0, verbose=0).model
tfbig.export(model, "savedmodels/iris.tflite", quantize="int8", calibration=data.x, overwrite=True)

APPLICATION = """
import sys
import numpy as np
import tfbig

lite = tfbig.LiteModel("savedmodels/iris.tflite")
flowers = np.array([[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]])  # centimetres, as measured
print("classes", lite.predict(flowers).argmax(axis=1))
print("TensorFlow loaded:", "tensorflow" in sys.modules)
"""
subprocess.run([sys.executable, "-c", APPLICATION], check=True)
