"""One training on several devices: each batch is shared out, and the weights are those of one device.

Without GPUs, TensorFlow can cut the CPU into logical devices, as below: the place to try what will run on a machine
with many. With GPUs leave that line out, and `strategy=` too: `fit` takes all there are.
"""

import numpy as np
import tensorflow as tf

import tfbig

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)

data = tfbig.load_dataset("digits")
x_train, x_test, y_train, y_test = tfbig.split(data.x / 16, data.y, seed=0)


def build():
    return tfbig.models.cnn((8, 8, 1), 10)


# 64 rows a batch, of all devices together: 22, 21 and 21. The last batch of an epoch has fewer; that is no problem.
options = {"epochs": 5, "batch_size": 64, "seed": 0, "verbose": 0}
one = tfbig.fit(build, x_train, y_train, strategy=None, **options)
three = tfbig.fit(build, x_train, y_train, strategy=["cpu:0", "cpu:1", "cpu:2"], **options)

for run in (one, three):
    print(f"{run.strategy:34}accuracy {tfbig.evaluate(run.model, x_test, y_test)['accuracy']:.4f}")
pairs = zip(one.model.get_weights(), three.model.get_weights(), strict=True)
print(f"largest difference of any weight  {max(np.abs(a - b).max() for a, b in pairs):.1e}")
