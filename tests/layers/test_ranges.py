import keras
import numpy as np
import pytest
import tensorflow as tf

from tfbig.layers.ranges import FakeQuant


def watched(layer, *batches):
    for batch in batches:
        layer(np.asarray(batch, np.float32), training=True)
    lowest, highest = layer.limits()
    return float(lowest), float(highest)


def test_the_range_is_the_mean_of_the_first_batches_then_moves_slowly():
    layer = FakeQuant()
    assert watched(layer, [-1, 2], [-3, 4]) == pytest.approx((-2, 3))
    layer.seen.assign(1000)
    assert watched(layer, [-12, 13]) == pytest.approx((-2.1, 3.1))


def test_the_range_always_holds_zero_and_has_a_width():
    assert watched(FakeQuant(), [3, 5]) == (0, 5)
    assert watched(FakeQuant(), [-5, -3]) == (-5, 0)
    assert watched(FakeQuant(), [0, 0]) == (0, 1)
    assert watched(FakeQuant(bits=16), [-1, 4]) == (-4, pytest.approx(4 * 32767 / 32768))


def test_values_come_out_on_256_levels_of_the_range():
    layer = FakeQuant()
    x = np.linspace(-1, 3, 1001, dtype=np.float32)
    watched(layer, x)
    rounded = np.asarray(layer(x))
    assert len(np.unique(rounded)) == 256
    assert 0 in rounded
    # Half a step, and at the ends as much again, where the range was moved so that 0 is a level.
    assert np.abs(rounded - x).max() <= 4 / 255


def test_inference_leaves_the_range_alone_and_so_does_observe_false():
    layer = FakeQuant()
    before = watched(layer, [-1, 1])
    layer(np.float32([9]))
    layer(np.float32([9]), observe=False, training=True)
    assert watched(layer) == before
    layer.trainable = False
    assert watched(layer, [9]) == before


def test_rounding_waits_for_the_delay_and_watches_meanwhile():
    layer = FakeQuant(delay=2)
    x = np.float32([0.1234, 1])
    outputs = [np.asarray(layer(x, training=True)) for _ in range(3)]
    assert np.array_equal(outputs[0], x)
    assert np.array_equal(outputs[1], x)
    assert not np.array_equal(outputs[2], x)
    assert watched(layer) == (0, 1)


def test_the_gradient_passes_rounding_and_stops_outside_the_range():
    layer = FakeQuant()
    watched(layer, [-1, 1])
    layer.trainable = False
    x = tf.constant([-3.0, 0.3, 3.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(layer(x))
    assert tape.gradient(total, x).numpy().tolist() == [0, 1, 0]


def test_a_learned_range_rounds_the_same_and_has_gradients():
    plain, learned = FakeQuant(), FakeQuant(ranges="learned")
    x = tf.random.stateless_normal((500,), (1, 2))
    for layer in (plain, learned):
        watched(layer, x)
    learned.seen.assign(100)
    with tf.GradientTape() as tape:
        rounded = learned(0.9 * x, training=True)
        wide = tf.reduce_sum(tf.square(rounded - 0.2 * x))
    plain.trainable = False
    # Equal but where a value lies between two levels: float rounding decides there.
    assert np.abs(plain(0.9 * x) - rounded).max() <= (learned.max.numpy() - learned.min.numpy()) / 255 + 1e-6
    assert np.abs(plain(0.9 * x) - rounded).mean() <= 1e-4
    gradients = tape.gradient(wide, [learned.min.value, learned.max.value])
    assert all(np.isfinite(g) and g != 0 for g in gradients)


def test_known_ranges_have_no_weights_and_are_not_rounded_in_training():
    layer = FakeQuant(activation="softmax")
    x = np.float32([[0.001, 0.999]])
    assert np.array_equal(layer(x, training=True), x)
    assert np.asarray(layer(x)).tolist() == [[0, 255 / 256]]
    assert layer.weights == []
    assert np.asarray(FakeQuant(activation="tanh")(np.float32([-1, 1]))).tolist() == [-1, 127 / 128]


def test_it_is_made_again_from_its_config():
    layer = FakeQuant(bits=16, ranges="learned", delay=7, activation="sigmoid", name="a")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()
    assert (again.bits, again.ranges, again.delay) == (16, "learned", 7)
