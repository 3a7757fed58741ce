import numpy as np
import pytest

from tfbig.deployment.proof import TOLERANCES, compare

EXPECTED = np.array([[0.0, 10.0], [4.0, 2.0]])


def test_errors_are_shares_of_the_range():
    proof = compare(None, "calibration", [EXPECTED], [EXPECTED + np.array([[0.0, 1.0], [0.0, 0.0]])])
    assert proof.max_error == pytest.approx(1 / 10)
    assert proof.mean_error == pytest.approx(1 / 40)
    assert not proof.holds


def test_agreement_is_the_share_of_equal_labels():
    got = EXPECTED.copy()
    got[1] = [1.0, 2.0]
    assert compare("int8", "calibration", [EXPECTED], [got]).agreement == 0.5
    assert compare("int8", "calibration", [EXPECTED[:, :1]], [got[:, :1]]).agreement is None


def test_nan_never_holds():
    assert not compare("int8", "calibration", [EXPECTED], [np.full_like(EXPECTED, np.nan)]).holds


def test_the_worst_output_counts():
    fine, bad = EXPECTED, EXPECTED + 5
    assert compare(None, "calibration", [EXPECTED, EXPECTED], [fine, bad]).mean_error == pytest.approx(0.5)


def test_coarser_modes_are_allowed_more():
    limits = [TOLERANCES[mode] for mode in (None, "float16", "dynamic", "int8")]
    assert limits == sorted(limits)
