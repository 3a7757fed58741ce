"""Permutation importance: how much worse a model scores when one feature comes from other rows."""

from typing import Any

import numpy as np

from tfbig.errors import InvalidOption
from tfbig.evaluation.answering import answers_of, likely_of
from tfbig.evaluation.scoring import estimator_of, get_scorers

_SCORING = {"multilabel": "f1_macro", "regression": "r2"}


def permutation(
    model: Any, x: np.ndarray, y: Any, task: str | None, scoring: Any, repeats: int, seed: int | None
) -> tuple[np.ndarray, np.ndarray, str]:
    """Returns the importance of each feature by scikit-learn's `permutation_importance`.

    Breiman, "Random Forests", Machine Learning 45, 2001, section 10. A feature is a position along the last axis of x;
    of sequences its whole course comes from another row.

    Args:
        model: Anything with `predict`.
        x: Shape (rows, features) or (rows, steps, features).
        y: Targets.
        task: As for `evaluate`.
        scoring: A scorer's name or a callable `scorer(estimator, x, y)`; None for accuracy, macro F1 or R².
        repeats: How often each feature is permuted.
        seed: Of the permutations.

    Returns:
        The mean loss of score and its standard deviation, both of shape (features,), and the scorer's name.
    """
    from sklearn.inspection import permutation_importance

    found, _ = answers_of(model, x, y, task)
    scoring = _SCORING.get(found.task, "accuracy") if scoring is None else scoring
    scorers = get_scorers(scoring)
    if len(scorers) != 1:
        raise InvalidOption(f"scoring must be one scorer; got {len(scorers)}: {', '.join(scorers)}.")
    ((name, scorer),) = scorers.items()

    # scikit-learn permutes the columns of a table. It gets one of row numbers, from which the rows are put together:
    # so x may have any shape, and keeps its dtype.
    def outputs(table: np.ndarray) -> np.ndarray:
        columns = [x[table[:, place], ..., place] for place in range(x.shape[-1])]
        columns_of_y = found.targets.shape[1] if found.task == "multilabel" else 1
        return likely_of(model, np.stack(columns, axis=-1), labels=columns_of_y)

    table = np.repeat(np.arange(len(x))[:, None], x.shape[-1], axis=1)
    estimator = estimator_of(found.task, outputs, table, outputs(table))
    targets = (
        found.targets[:, 0] if found.task == "regression" and found.targets.shape[1] == 1 else found.targets
    )
    result = permutation_importance(
        estimator, table, targets, scoring=scorer, n_repeats=repeats, random_state=seed
    )
    return result.importances_mean, result.importances_std, name
