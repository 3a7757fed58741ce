"""The comparison of a file's answers with its model's."""

from typing import Any

import numpy as np

from tfbig.deployment.reports import Proof

# Mean error allowed, as a share of the range of the model's outputs. float32 differs by the order of sums only;
# float16 keeps 11 bits of each weight; 8 bits give errors of about 1 step in 256 per layer, so 5% is a file that
# computes something else (a sound int8 model stays well below 2%).
TOLERANCES: dict[str | None, float] = {None: 1e-5, "float16": 2e-3, "dynamic": 3e-2, "int8": 5e-2}


def compare(quantize: str | None, inputs: str, expected: list[np.ndarray], got: list[np.ndarray]) -> Proof:
    """Returns how `got`, the file's outputs, differ from `expected`, the model's; the worst output counts.

    Args:
        quantize: The mode of the file.
        inputs: "calibration" or "synthetic".
        expected: Outputs of the model, each of shape (rows, ...).
        got: Outputs of the file, in the same order.

    Returns:
        The `Proof`.
    """
    pairs = list(zip(expected, got, strict=True))
    scales = [float(np.ptp(e)) or float(np.abs(e).max()) or 1.0 for e, _ in pairs]
    differences = [
        np.abs(e.astype(np.float64) - g) / scale for (e, g), scale in zip(pairs, scales, strict=True)
    ]
    return Proof(
        inputs=inputs,
        rows=len(expected[0]),
        mean_error=max(float(d.mean()) for d in differences),
        max_error=max(float(d.max()) for d in differences),
        agreement=_agreement(expected[0], got[0]),
        tolerance=TOLERANCES[quantize],
    )


def _agreement(expected: Any, got: Any) -> float | None:
    if expected.ndim != 2 or expected.shape[1] < 2:
        return None
    return float((expected.argmax(axis=1) == got.argmax(axis=1)).mean())
