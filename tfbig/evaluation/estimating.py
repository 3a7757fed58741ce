"""What scikit-learn estimators of Keras models share, whatever they predict: a training, and the model's outputs."""

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from tfbig.backend import keras
from tfbig.data.checking import check_array, is_stream
from tfbig.errors import InvalidData, InvalidModel
from tfbig.evaluation.parameters import COMPILING, Parameters
from tfbig.evaluation.predicting import outputs_of
from tfbig.training import checks
from tfbig.training.compiling import compile_for_arrays
from tfbig.training.fit import fit
from tfbig.training.objectives import loss_and_metrics

# Models that an estimator has trained: a builder that returns one of them would carry a fold into the next.
_trained: weakref.WeakSet[Any] = weakref.WeakSet()


class KerasEstimator(Parameters):
    """What classifier and regressor share: one training, by `tfbig.fit`, and the model's outputs."""

    model_: Any
    history_: dict[str, list[float]]
    # For the classifier and the regressor to say:
    _learn_targets: Callable[..., np.ndarray]  # notes what y is like; returns it as the model takes it
    _known_targets: Callable[..., np.ndarray]  # further targets, of the same kind, as the model takes them
    _found: Callable[[], dict[str, Any]]  # the task and the number of outputs that y calls for

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Trains a fresh model on these rows.

        Args:
            X: Inputs of shape (rows, ...): a table, images, sequences; pandas too.
            y: Targets of shape (rows,) or (rows, outputs).
            sample_weight: Weight of each row in the loss, shape (rows,).

        Returns:
            The estimator.

        Raises:
            InvalidData: The rows, targets or weights will not do; a ValueError, as scikit-learn's own are.
            InvalidModel: The builder needs what nobody gives, returns no model, or one that does not fit y.
            InvalidOption, UnknownOption: An option makes no sense, or not to the builder that was set last.
        """
        self._check_parameters()
        self.__dict__.pop("model_", None)  # so that a fit that fails leaves no model of other data
        X, y = validate_data(self, X, y, allow_nd=True, multi_output=True)
        y = self._learn_targets(y)
        weights = self._weights(sample_weight, y)
        self._check_weighted(weights, y)
        run = fit(self._maker(), X, y, sample_weight=weights, **self._fit_options())
        self._keep(run, {})
        return self

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, classes: Any = None) -> Any:
        self._check_parameters()
        first = not self.__sklearn_is_fitted__()
        X, y = validate_data(self, X, y, reset=first, allow_nd=True, multi_output=True)
        y = self._learn_targets(y, classes) if first else self._known_targets(y)
        weights = self._weights(sample_weight, y)
        options = {**self._fit_options(), "epochs": 1}
        before: dict[str, list[float]] = {} if first else self.history_
        if before and options["seed"] is not None:
            # The same seed again would shuffle and drop alike in every pass.
            options["seed"] = (options["seed"] + len(before.get("loss", ()))) % 2**32
        run = fit(self._maker() if first else self.model_, X, y, sample_weight=weights, **options)
        self._keep(run, before)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return "model_" in vars(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.non_deterministic = self.seed is None
        return tags

    def _weights(self, sample_weight: Any, y: np.ndarray) -> np.ndarray | None:
        weights = checks.sample_weight(sample_weight, len(y))
        if weights is not None and not weights.any():
            raise InvalidData("sample_weight must give some row a weight above zero; all weights are zero.")
        return weights

    def _check_weighted(self, weights: np.ndarray | None, y: np.ndarray) -> None:
        """Raises `InvalidData` when the rows that count are not enough to learn from."""

    def _fit_options(self) -> dict[str, Any]:
        """The options for `tfbig.fit`, without those that went into compiling and into the weights."""
        elsewhere = {*COMPILING, "class_weight"}
        options = {name: getattr(self, name) for name in self._fit_defaults if name not in elsewhere}
        data = options["validation_data"]
        if not is_stream(data) and isinstance(data, tuple | list) and len(data) in (2, 3):
            options["validation_data"] = (data[0], self._known_targets(data[1], "validation y"), *data[2:])
        return options

    def _maker(self) -> Any:
        """The builder as `fit` takes it: its model is checked and compiled for the task that y shows."""

        def make(x_train: Any, y_train: Any) -> Any:
            found = {"input_shape": x_train.shape[1:], **self._found()}
            model = self._call_builder(x_train, y_train, found)
            if isinstance(model, keras.Model):  # fit refuses anything else
                self._prepare(model, x_train, y_train)
            return model

        make.__name__ = getattr(self.build, "__name__", make.__name__)
        return make

    def _prepare(self, model: Any, x_train: np.ndarray, y_train: np.ndarray) -> None:
        if model in _trained:
            raise InvalidModel(
                "The builder returned a model that was trained already: this fit would start from its weights. "
                "Build the model inside the function."
            )
        if not model.built:
            model(x_train[:1])
        outputs = self._count_outputs(model, x_train)
        loss, metrics = self._compile_option("loss"), self._compile_option("metrics")
        if loss is None and not model.compiled:
            loss, chosen = loss_and_metrics(self._task(outputs), model)
            metrics = chosen if metrics is None else metrics
        compile_for_arrays(model, y_train, self._optimizer(model), loss, metrics)

    def _count_outputs(self, model: Any, x_train: np.ndarray) -> int:
        shape, (wanted, task) = getattr(model, "output_shape", None), self._found().values()
        if shape is None:  # a subclassed model does not say
            shape = tuple(getattr(model(x_train[:1]), "shape", ()))
        if not isinstance(shape, tuple) or len(shape) != 2:
            return wanted  # several outputs, which predict refuses, and fit too unless it is given a loss
        # Two classes may have one logit between them or one each.
        if shape[1] not in ((1, 2) if task == "binary" else (wanted,)):
            raise InvalidModel(
                f"The model {model.name!r} gives {shape[1]} outputs per row; y calls for {wanted} ({task}). A "
                "builder with an argument named outputs is given the number."
            )
        return shape[1]

    def _task(self, outputs: int) -> str:
        task = self._found()["task"]
        return "multiclass" if task == "binary" and outputs == 2 else task

    def _keep(self, run: Any, before: dict[str, list[float]]) -> None:
        _trained.add(run.model)
        self.model_ = run.model
        self.history_ = {name: [*before.get(name, []), *values] for name, values in run.history.items()}

    def _outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, allow_nd=True)
        outputs = outputs_of(self.model_, check_array(X, "X")).astype(np.float64)
        return outputs.reshape(len(outputs), -1)
