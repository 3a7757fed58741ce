import numpy as np
import pytest

from tfbig.deployment.modes import MODES
from tfbig.deployment.proof import compare

EXPECTED = np.array([[0.0, 10.0], [4.0, 2.0]])


def test_errors_are_shares_of_the_range():
    proof = compare("calibration", [EXPECTED], [EXPECTED + np.array([[0.0, 1.0], [0.0, 0.0]])], 1e-5)
    assert proof.max_error == pytest.approx(1 / 10)
    assert proof.mean_error == pytest.approx(1 / 40)
    assert not proof.holds


def test_agreement_is_the_share_of_equal_labels():
    got = EXPECTED.copy()
    got[1] = [1.0, 2.0]
    assert compare("calibration", [EXPECTED], [got], 0.05).agreement == 0.5
    assert compare("calibration", [EXPECTED[:, :1]], [got[:, :1]], 0.05).agreement is None


def test_nan_never_holds():
    assert not compare("calibration", [EXPECTED], [np.full_like(EXPECTED, np.nan)], 0.05).holds


def test_the_worst_output_counts():
    fine, bad = EXPECTED, EXPECTED + 5
    assert compare("calibration", [EXPECTED, EXPECTED], [fine, bad], 1e-5).mean_error == pytest.approx(0.5)


def test_coarser_modes_are_allowed_more():
    limits = [MODES[mode].tolerance for mode in (None, "float16", "dynamic", "int8")]
    assert limits == sorted(limits)


def test_the_cosine_is_of_all_answers_and_the_worst_output():
    turned = EXPECTED[:, ::-1]
    expected = float((EXPECTED * turned).sum() / (EXPECTED**2).sum())
    assert compare("calibration", [EXPECTED] * 2, [2 * EXPECTED, turned], 0.05).cosine == pytest.approx(
        expected
    )
    assert compare("calibration", [EXPECTED], [2 * EXPECTED], 0.05).cosine == pytest.approx(1)
    assert compare("calibration", [0 * EXPECTED], [0 * EXPECTED], 0.05).cosine == 1
    assert np.isnan(compare("calibration", [EXPECTED], [EXPECTED * np.nan], 0.05).cosine)
