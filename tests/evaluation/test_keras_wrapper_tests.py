"""What Keras tests of its own scikit-learn wrappers, asked of the estimators here, with the same model and optimizer.

Keras 3.15.1 lists nine checks of the classifier and the regressor that its wrappers may fail; here the list has one,
and the reason is minibatch SGD, not the wrapper. Keras's wrappers also call themselves bad predictors (`poor_score`),
which excuses them from learning; these estimators do not, so they are given the epochs to learn in.
"""

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.utils.estimator_checks import parametrize_with_checks

from tfbig import KerasClassifier, KerasRegressor
from tfbig.backend import keras


def dynamic_model(x_train, outputs, task, activation="softmax", layers=(10,)):
    """A small network whose head and loss follow from the data, as in Keras's tests; trained by RMSprop."""
    # Two classes have one output between them here: a softmax over one output would always be 1.
    head = activation if outputs > 1 or activation == "linear" else "sigmoid"
    stack = [
        keras.Input(x_train.shape[1:]),
        *(keras.layers.Dense(size, activation="relu") for size in layers),
    ]
    model = keras.Sequential(
        [*stack, keras.layers.Dense(outputs, activation="linear" if task == "regression" else head)]
    )
    loss = {
        "regression": "mse",
        "binary": "binary_crossentropy",
        "multiclass": "sparse_categorical_crossentropy",
    }
    if task == "binary" and head == "linear":
        loss["binary"] = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile("rmsprop", loss.get(task, "binary_crossentropy"))
    return model


@parametrize_with_checks(
    [
        KerasClassifier(dynamic_model, layers=(20, 20, 20), epochs=30, batch_size=8, seed=0),
        KerasRegressor(dynamic_model, epochs=60, batch_size=4, seed=0),
    ],
    expected_failed_checks=lambda estimator: {
        "check_sample_weight_equivalence_on_dense_data": "minibatch SGD; scikit-learn's MLP fails it alike"
    },
)
def test_scikit_learns_checks_with_keras_own_test_model(estimator, check):
    check(estimator)


@pytest.mark.parametrize("activation", ["softmax", "linear"])
def test_the_most_likely_class_is_what_is_predicted(activation):
    x, y = make_classification(10, n_features=10, n_informative=4, n_classes=2, random_state=42)
    classifier = KerasClassifier(dynamic_model, activation=activation, epochs=1, seed=0).fit(x, y)
    likely = classifier.predict_proba(x)
    np.testing.assert_array_equal(classifier.classes_[likely.argmax(axis=-1)], classifier.predict(x))
    np.testing.assert_allclose(likely.sum(axis=1), 1, rtol=1e-6)
