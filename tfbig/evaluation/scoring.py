"""scikit-learn's scorers on the outputs of a fold's model, beside tfbig's own metrics."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from tfbig.data.checking import check_array
from tfbig.errors import InvalidData, InvalidOption, unknown_choice
from tfbig.evaluation import predicting
from tfbig.evaluation.answering import Given
from tfbig.evaluation.metrics import infer_task, probabilities, score

Outputs = Callable[[Any], np.ndarray]


def get_scorers(scoring: Any) -> dict[str, Callable[..., Any]]:
    """Returns scorers by name.

    Args:
        scoring: One of scikit-learn's scorer names, a callable `scorer(estimator, x, y)`, a list of names, or a
            mapping of names to either; None for no scorers.

    Raises:
        InvalidOption: It is none of these, or scikit-learn has no such scorer.
    """
    if scoring is None:
        return {}
    if isinstance(scoring, str) or callable(scoring):
        scoring = [scoring]
    if not isinstance(scoring, Iterable):
        raise InvalidOption(
            f"scoring must be a scorer's name, a callable, a list or a dict; got {scoring!r}."
        )
    if isinstance(scoring, Mapping):
        return {str(name): _scorer(scorer) for name, scorer in scoring.items()}
    return {s if isinstance(s, str) else getattr(s, "__name__", "score"): _scorer(s) for s in scoring}


def fold_scores(
    outputs_of: Outputs, x: Any, y: np.ndarray, task: str | None, scorers: Mapping[str, Callable[..., Any]]
) -> tuple[dict[str, float], str]:
    """Scores one fold's model on some rows.

    Args:
        outputs_of: From inputs to raw outputs.
        x: The inputs of the rows.
        y: Their targets.
        task: "binary", "multiclass", "multilabel" or "regression"; None to see it from outputs and targets.
        scorers: What `get_scorers` returned.

    Returns:
        Metric name to value, a scorer's in place of tfbig's own of that name; and the task.

    Raises:
        InvalidData: Outputs are NaN, or a scorer fails or gives NaN.
    """
    outputs = outputs_of(x)
    given, y = predicting.outputs_of(Given(outputs), np.zeros((len(y), 1))), check_array(y, "y")
    task = task or infer_task(given, y)
    scores, targets, _ = score(task, given, y)
    estimator = estimator_of(task, outputs_of, x, outputs)
    if task == "regression" and targets.shape[-1] == 1:
        targets = targets.reshape(len(targets))
    for name, scorer in scorers.items():
        try:
            value = scorer(estimator, x, targets)
        except Exception as error:  # a scorer is anybody's code
            raise InvalidData(f"scorer {name!r} failed: {type(error).__name__}: {error}") from error
        if not np.isscalar(value) and np.ndim(value) != 0:
            raise InvalidData(f"scorer {name!r} must give one number; got {type(value).__name__}")
        if np.isnan(value):
            raise InvalidData(f"scorer {name!r} gives NaN")
        scores[name] = float(value)
    return scores, task


def _scorer(scorer: Any) -> Callable[..., Any]:
    from sklearn.metrics import get_scorer, get_scorer_names

    if callable(scorer):
        return scorer
    if not isinstance(scorer, str) or scorer not in get_scorer_names():
        raise unknown_choice("scoring", scorer, get_scorer_names())
    return get_scorer(scorer)


class _Fitted(BaseEstimator):
    """A fold's model as scikit-learn's scorers want an estimator."""

    task: str
    outputs_of: Outputs
    rows: Any
    given: np.ndarray

    def fit(self, X: Any, y: Any) -> Any:
        return self  # it is; scikit-learn takes nothing for an estimator that has no such method

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def _outputs(self, x: Any) -> np.ndarray:
        # Scorers ask for the same rows again and again.
        return self.given if x is self.rows else self.outputs_of(x)


class _Classifier(ClassifierMixin, _Fitted):
    def predict(self, x: Any) -> np.ndarray:
        if self.task == "multiclass":
            return self._outputs(x).argmax(axis=1)
        likely = self.predict_proba(x)
        return ((likely if self.task == "multilabel" else likely[:, 1]) > 0.5).astype(np.int64)

    def predict_proba(self, x: Any) -> np.ndarray:
        outputs = self._outputs(x)
        likely = probabilities(self.task, outputs.reshape(len(outputs), -1))
        return np.column_stack([1 - likely, likely]) if self.task == "binary" else likely

    def decision_function(self, x: Any) -> np.ndarray:
        outputs = self._outputs(x)
        if self.task == "multiclass" and outputs.shape[1] == 2:
            return outputs[:, 1] - outputs[:, 0]  # scikit-learn wants one number where there are two classes
        return outputs.reshape(len(outputs)) if self.task == "binary" else outputs


class _Regressor(RegressorMixin, _Fitted):
    def predict(self, x: Any) -> np.ndarray:
        outputs = self._outputs(x)
        return outputs.reshape(len(outputs)) if outputs.ndim == 2 and outputs.shape[1] == 1 else outputs


def estimator_of(task: str, outputs_of: Outputs, rows: Any, given: np.ndarray) -> Any:
    """Returns a model as an estimator that scikit-learn's scorers take.

    Args:
        task: "binary", "multiclass", "multilabel" or "regression".
        outputs_of: From inputs to raw outputs.
        rows: Inputs whose outputs are known.
        given: Those outputs.
    """
    estimator: Any = _Regressor() if task == "regression" else _Classifier()
    estimator.task, estimator.outputs_of, estimator.rows, estimator.given = task, outputs_of, rows, given
    if task != "regression":
        columns = 1 if given.ndim == 1 else given.shape[1]
        estimator.classes_ = np.arange(2 if task == "binary" else columns)
    return estimator
