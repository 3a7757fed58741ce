"""Several strategies in one process; in a child, since logical devices are made before TensorFlow starts."""

import subprocess
import sys

SEVERAL = """
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
import numpy as np
import tfbig
x = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
for replicas, units in ((2, 8), (3, 8), (2, 5)):
    model = tfbig.models.mlp((4,), 2, hidden=(units,))
    print(tfbig.fit(model, x, (x[:, 0] > 0).astype(int), strategy=replicas, epochs=1, verbose=0).strategy)
assert tfbig.strategy(2) is tfbig.strategy(2)
assert isinstance(tf.distribute.MirroredStrategy._collective_key_base, int)
"""


def test_models_of_any_shape_train_one_after_the_other_on_any_number_of_devices():
    result = subprocess.run([sys.executable, "-c", SEVERAL], capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-2000:]
    assert [line.split(", ")[1] for line in result.stdout.splitlines()] == [
        "2 replicas",
        "3 replicas",
        "2 replicas",
    ]
