"""From data to a proven int8 file in a dozen lines."""

import tfbig

data = tfbig.load_dataset("digits")
x, y, report = tfbig.clean(data.x, data.y)
x_train, x_test, y_train, y_test = tfbig.split(x, y, test_size=0.2, seed=0)


def build(x_train):
    return tfbig.models.cnn((8, 8, 1), 10, normalizer=tfbig.normalizer(x_train))


run = tfbig.fit(build, x_train, y_train, epochs=10, seed=0, verbose=0)
thin = tfbig.prune(run.model, x_train, y_train, sparsity=0.8, epochs=10, seed=0, verbose=0)
lite = tfbig.export(thin, "savedmodels/digits.tflite", quantize="int8", calibration=x_train, overwrite=True)
print(lite.report)
print(tfbig.evaluate(lite, x_test, y_test))
