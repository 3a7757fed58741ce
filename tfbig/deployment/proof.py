"""The comparison of a file's answers with its model's."""

from typing import Any

import numpy as np

from tfbig.deployment.reports import Proof


def compare(inputs: str, expected: list[np.ndarray], got: list[np.ndarray], tolerance: float) -> Proof:
    """Returns how `got`, the file's outputs, differ from `expected`, the model's; the worst output counts.

    Args:
        inputs: "calibration" or "synthetic".
        expected: Outputs of the model, each of shape (rows, ...).
        got: Outputs of the file, in the same order.
        tolerance: The mean error allowed, as a share of the output's range.

    Returns:
        The `Proof`.
    """
    pairs = [(e.astype(np.float64), g.astype(np.float64)) for e, g in zip(expected, got, strict=True)]
    scales = [float(np.ptp(e)) or float(np.abs(e).max()) or 1.0 for e, _ in pairs]
    differences = [np.abs(e - g) / scale for (e, g), scale in zip(pairs, scales, strict=True)]
    agreements = [_agreement(e, g) for e, g in pairs]
    return Proof(
        inputs=inputs,
        rows=len(expected[0]),
        mean_error=_worst([float(d.mean()) for d in differences]),
        max_error=_worst([float(d.max()) for d in differences]),
        cosine=-_worst([-_cosine(e, g) for e, g in pairs]),
        agreement=min((a for a in agreements if a is not None), default=None),
        tolerance=tolerance,
    )


def _worst(values: list[float]) -> float:
    return float(np.max(values))  # unlike Python's, NumPy's maximum with a NaN is NaN


def _cosine(expected: Any, got: Any) -> float:
    """The cosine of the angle between all answers; 1 for two that are nothing but zeros."""
    lengths = float(np.linalg.norm(expected) * np.linalg.norm(got))
    if lengths == 0:
        return float(np.array_equal(expected, got))
    return float(np.vdot(expected, got) / lengths)


def _agreement(expected: Any, got: Any) -> float | None:
    if expected.ndim < 2 or expected.shape[-1] < 2:
        return None
    return float((expected.argmax(axis=-1) == got.argmax(axis=-1)).mean())
