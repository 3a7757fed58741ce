"""What tests of files may compare with."""

import pytest


@pytest.fixture(scope="session")
def bare_int8():
    """A function from a model of one input, rows and a folder to the bare converter's int8 bytes, for a batch of 1."""
    import keras
    import tensorflow as tf

    def convert(model, rows, folder):
        spec = keras.InputSpec(shape=(1, *model.input_shape[1:]), dtype="float32", name="x")
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serve", lambda x: model(x, training=False), input_signature=[spec])
        archive.write_out(str(folder), verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row[None]] for row in rows)
        return converter.convert()

    return convert
