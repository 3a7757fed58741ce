import numpy as np
import pytest

import tfbig
from tfbig.backend import keras
from tfbig.data.windows import windows
from tfbig.errors import InvalidData, InvalidOption

SERIES = np.arange(20, dtype=np.float32)
TABLE = np.stack([SERIES, SERIES * 10], axis=1)


@pytest.mark.parametrize(("length", "stride"), [(1, 1), (4, 1), (4, 3), (19, 1)])
def test_windows_and_targets_are_those_of_keras(length, stride):
    x, y = windows(TABLE, length=length, stride=stride)
    theirs = keras.utils.timeseries_dataset_from_array(
        TABLE[:-1], TABLE[length:], sequence_length=length, sequence_stride=stride, batch_size=None
    )
    pairs = [(a.numpy().tolist(), b.numpy().tolist()) for a, b in theirs]
    assert list(zip(x.tolist(), y.tolist(), strict=True)) == pairs


def test_a_horizon_of_several_steps_comes_after_the_gap():
    x, y = windows(SERIES, length=3, horizon=2, gap=4)
    assert (x[0, :, 0].tolist(), y[0].tolist()) == ([0, 1, 2], [7, 8])
    assert (x[-1, :, 0].tolist(), y[-1].tolist()) == ([11, 12, 13], [18, 19])


@pytest.mark.parametrize(
    ("target", "horizon", "shape"),
    [(None, 1, (17, 2)), (1, 1, (17,)), ([1], 1, (17, 1)), (1, 2, (16, 2)), ([0, 1], 2, (16, 2, 2))],
)
def test_the_target_is_the_features_asked_for(target, horizon, shape):
    y = windows(TABLE, length=3, horizon=horizon, target=target).y
    assert y.shape == shape
    assert y.ravel()[-1] == (190 if target != 0 else 19)


def test_targets_that_are_not_in_the_series_are_those_of_the_last_step():
    x, y = windows(SERIES, length=5, horizon=0, y=SERIES * 2)
    np.testing.assert_array_equal(y, x[:, -1, 0] * 2)


def test_targets_that_are_not_in_the_series_can_lie_ahead():
    x, y = windows(SERIES, length=5, horizon=1, y=SERIES * 2)
    np.testing.assert_array_equal(y, (x[:, -1, 0] + 1) * 2)


def test_windows_take_no_memory_of_their_own():
    series = np.zeros((1000, 2), np.float32)
    x, y = windows(series, length=100, target=0)
    assert np.shares_memory(x, series)
    assert np.shares_memory(y, series) is False or y.nbytes < series.nbytes


def test_a_model_trains_on_windows():
    x, y = windows(np.sin(np.arange(300) / 5), length=8)
    model = tfbig.models.mlp((8, 1), 1, task="regression", hidden=(16,))
    history = tfbig.fit(model, x, y, epochs=30, seed=0, verbose=0).history
    # A sine is a linear function of its two last values; predicting the mean would cost 0.5.
    assert history["loss"][-1] < 0.05


@pytest.mark.parametrize(
    ("series", "options", "error", "message"),
    [
        (SERIES, {"length": 20}, InvalidData, "need 21 steps; the series has 20"),
        (SERIES, {"length": 0}, InvalidOption, "length must be a whole number of at least 1"),
        (SERIES, {"length": 3, "horizon": 0}, InvalidOption, "horizon=0 .* pass y="),
        (
            SERIES,
            {"length": 3, "target": 1},
            InvalidOption,
            "target must be a feature of the series, 0 to 0; got 1",
        ),
        (TABLE, {"length": 3, "target": [0, "a"]}, InvalidOption, "target must be a feature .* got 'a'"),
        (TABLE, {"length": 3, "target": 0, "y": SERIES}, InvalidOption, "got both target= and y="),
        (
            SERIES,
            {"length": 3, "y": SERIES[:4]},
            InvalidData,
            "y must hold one row for each of the 20 steps; got 4",
        ),
        ([1.0, np.nan], {"length": 1}, InvalidData, "series must be finite"),
        (np.zeros((3, 3, 3)), {"length": 1}, InvalidData, "series must have shape"),
    ],
)
def test_what_cannot_be_cut_is_refused(series, options, error, message):
    with pytest.raises(error, match=message):
        windows(series, **options)
