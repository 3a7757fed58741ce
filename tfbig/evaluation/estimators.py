"""scikit-learn estimators: a builder of Keras models with `fit`, `predict` and parameters that can be searched."""

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from tfbig.backend import keras
from tfbig.data.checking import check_array
from tfbig.errors import InvalidData, InvalidOption
from tfbig.evaluation.estimating import KerasEstimator
from tfbig.evaluation.metrics import probabilities
from tfbig.evaluation.parameters import Parameters


class KerasClassifier(ClassifierMixin, KerasEstimator):
    """A scikit-learn classifier whose model a builder of Keras models makes anew for each fit.

    Args:
        build: A function that returns a Keras model; `tfbig.models.mlp` by default. Its arguments are the
            estimator's parameters, so that searches reach them. Arguments named `input_shape`, `outputs` and
            `task` are taken from the data unless given; `x_train` and `y_train` (or `x`, `y`) get the training
            rows, with the labels as numbers from 0.
        **options: The builder's arguments; any option of `tfbig.fit`, in particular `epochs`, `batch_size`,
            `optimizer`, `callbacks`, `validation_data` and `seed` (`verbose` is 0 by default); settings of the
            optimizer as `optimizer__learning_rate`. Labels in `class_weight` and `validation_data` are those of
            y; `class_weight="balanced"` weighs classes by their rarity. An argument of the builder that is an
            option of `fit` too goes to both, but a builder that takes `optimizer`, `loss` or `metrics` compiles
            the model itself.

    Labels are of any type. Two make a binary task with one output; y of shape (rows, labels) of zeros and ones
    makes a multilabel one.

    Attributes:
        classes_: The labels, sorted; for a multilabel task the numbers of the columns.
        model_: The trained Keras model.
        history_: Metric name to its value after each epoch.
        n_features_in_, feature_names_in_: Size of a row's first axis, and its names when X is a frame.

    Raises:
        UnknownOption: Neither the builder nor `fit` has an option of that name.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(100, 4)); y = np.where(x[:, 0] > 0, "up", "down")
        >>> classifier = KerasClassifier(hidden=(8,), epochs=2, seed=0).fit(x, y)
        >>> classifier.classes_.tolist(), classifier.predict_proba(x).shape
        (['down', 'up'], (100, 2))
    """

    classes_: np.ndarray

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Any:
        """Trains one more epoch, on these rows, from where the model stands.

        Args:
            X: Inputs of shape (rows, ...).
            y: Labels.
            classes: For the first call: every label that will come; those of y by default.
            sample_weight: Weight of each row in the loss, shape (rows,).

        Raises:
            InvalidData: A label that is not among the classes.
            InvalidOption: class_weight="balanced", which needs all rows at once.
        """
        if isinstance(self.class_weight, str):
            raise InvalidOption(
                f"class_weight={self.class_weight!r} needs all rows at once; give partial_fit each label's weight."
            )
        return self._partial_fit(X, y, sample_weight, classes)

    def predict(self, X: Any) -> np.ndarray:
        """Returns the most likely label of each row, shape (rows,); zeros and ones, (rows, labels), if multilabel."""
        likely = self.predict_proba(X)
        if self._multilabel:
            return (likely > 0.5).astype(np.int64)
        return self.classes_[likely.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns probabilities of shape (rows, classes), in the order of `classes_`; of each label if multilabel."""
        outputs = self._outputs(X)
        task = self._task(outputs.shape[1])
        if getattr(self.model_.loss, "from_logits", False):
            # The loss knows; from the outputs alone, logits that all lie in [0, 1] pass for probabilities.
            squash = keras.ops.softmax if task == "multiclass" else keras.ops.sigmoid
            outputs = np.asarray(squash(outputs))
        likely = probabilities(task, outputs)
        return np.column_stack([1 - likely, likely]) if task == "binary" else likely

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _learn_targets(self, y: np.ndarray, classes: Any = None) -> np.ndarray:
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y")
        if kind == "multiclass-multioutput":
            raise InvalidData(
                "y of several columns must hold zeros and ones, a column per label; got others."
            )
        self._multilabel = kind == "multilabel-indicator"
        if self._multilabel:
            y = _dense(y)
            self.classes_ = np.arange(y.shape[1])
        else:
            self.classes_ = np.unique(column_or_1d(y) if classes is None else classes)
        return self._known_targets(y)

    def _known_targets(self, y: Any, name: str = "y") -> np.ndarray:
        if self._multilabel:
            return _dense(y).astype(np.float32)
        y = column_or_1d(y, warn=True)
        unknown = ~np.isin(y, self.classes_)
        if unknown.any():
            raise InvalidData(
                f"{name} must hold the classes of the first fit, {self.classes_.tolist()}; got "
                f"{y[unknown].tolist()[0]!r}. Pass all of them to the first partial_fit: classes=[...]."
            )
        return np.searchsorted(self.classes_, y)

    def _found(self) -> dict[str, Any]:
        if self._multilabel:
            return {"outputs": len(self.classes_), "task": "multilabel"}
        if len(self.classes_) == 2:
            return {"outputs": 1, "task": "binary"}
        return {"outputs": len(self.classes_), "task": "multiclass"}

    def _weights(self, sample_weight: Any, y: np.ndarray) -> np.ndarray | None:
        weights = super()._weights(sample_weight, y)
        if self.class_weight is None:
            return weights
        if self._multilabel:
            raise InvalidOption("class_weight is for one label per row; this is a multilabel task.")
        by_class = compute_class_weight(self.class_weight, classes=self.classes_, y=self.classes_[y])
        return by_class[y] if weights is None else by_class[y] * weights

    def _check_weighted(self, weights: np.ndarray | None, y: np.ndarray) -> None:
        present = np.unique(y if weights is None else y[weights > 0])
        if not self._multilabel and len(present) < 2:
            where = "" if weights is None else " in rows with a weight above zero"
            label = self.classes_.tolist()[present[0]]
            raise InvalidData(f"y must hold at least 2 classes{where}; got 1 class, {label!r}.")


class KerasRegressor(RegressorMixin, KerasEstimator):
    """A scikit-learn regressor whose model a builder of Keras models makes anew for each fit.

    Args:
        build: As for `KerasClassifier`; an argument named `outputs` gets the number of columns of y.
        **options: As for `KerasClassifier`, without `class_weight`.

    Attributes:
        model_: The trained Keras model; `history_`, `n_features_in_` and `feature_names_in_` as there.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(100, 4))
        >>> regressor = KerasRegressor(hidden=(8,), epochs=2, optimizer="sgd", seed=0).fit(x, x[:, :2])
        >>> regressor.predict(x).shape
        (100, 2)
    """

    _not_options = (*Parameters._not_options, "class_weight")

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Trains one more epoch, on these rows, from where the model stands.

        Args:
            X: Inputs of shape (rows, ...).
            y: Values of shape (rows,) or (rows, outputs).
            sample_weight: Weight of each row in the loss, shape (rows,).

        Returns:
            The estimator.
        """
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: Any) -> np.ndarray:
        """Returns values of the shape that y had: (rows,) or (rows, outputs)."""
        return self._outputs(X)[:, 0 if self._columns is None else slice(None)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _learn_targets(self, y: np.ndarray, classes: Any = None) -> np.ndarray:
        values = self._known_targets(y)
        self._columns = None if np.ndim(y) == 1 else values.shape[1]
        return values

    def _known_targets(self, y: Any, name: str = "y") -> np.ndarray:
        return check_array(y, name).astype(np.float32).reshape(len(y), -1)

    def _found(self) -> dict[str, Any]:
        return {"outputs": self._columns or 1, "task": "regression"}


def _dense(y: Any) -> np.ndarray:
    return y.toarray() if hasattr(y, "toarray") else np.asarray(y)
