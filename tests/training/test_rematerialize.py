import itertools
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import tfbig
from tfbig.backend import keras, tf
from tfbig.errors import InvalidModel, InvalidOption
from tfbig.training.precision import precision
from tfbig.training.rematerialize import cut, rematerialized

ROWS = 48
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(ROWS, 8)).astype(np.float32)
Y = GENERATOR.integers(0, 3, ROWS)
IMAGES = GENERATOR.normal(size=(ROWS, 6, 6, 2)).astype(np.float32)
WORDS = GENERATOR.integers(0, 11, size=(ROWS, 5))


def residual(*between):
    """Blocks around which their input is carried; `between` are layer makers inside a block."""

    def build():
        inputs = x = keras.Input((8,))
        for _ in range(6):
            h = keras.layers.Dense(8)(x)
            for make in between:
                h = make()(h)
            x = keras.layers.Add()([x, keras.layers.Activation("gelu")(h)])
        return keras.Model(inputs, keras.layers.Dense(3)(x))

    return build


def chain():
    return tfbig.models.mlp((8,), 3, hidden=(8,) * 6, dropout=0.5, batch_norm=True, l2=1e-3)


def images():
    return tfbig.models.cnn((6, 6, 2), 3, filters=(4, 4), batch_norm=True, dropout=0.3)


def words():
    inputs = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(11, 8)(inputs)
    for _ in range(3):
        x = keras.layers.Add()([x, keras.layers.MultiHeadAttention(2, 4, dropout=0.2)(x, x)])
        x = keras.layers.LayerNormalization()(x)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(x)))


def operations():
    inputs = x = keras.Input((8,))
    for _ in range(4):
        x = x + keras.ops.relu(keras.layers.Dense(8)(x))
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def shared():
    inputs = x = keras.Input((8,))
    block = keras.layers.Dense(8, activation="tanh")
    for _ in range(5):
        x = block(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def named_input_and_output():
    inputs = keras.Input((8,), name="row")
    x = inputs
    for _ in range(4):
        x = keras.layers.Dense(8, activation="relu")(x)
    return keras.Model({"row": inputs}, keras.layers.Dense(3)(x))


def frozen():
    model = residual(keras.layers.BatchNormalization)()
    for layer in model.layers[:6]:
        layer.trainable = False
    return model


MODELS = {
    "residual, layer norm": (residual(keras.layers.LayerNormalization), X),
    "residual, batch norm and dropout": (
        residual(keras.layers.BatchNormalization, lambda: keras.layers.Dropout(0.5)),
        X,
    ),
    "chain with penalties": (chain, X),
    "images": (images, IMAGES),
    "whole numbers in, attention": (words, WORDS),
    "raw operations": (operations, X),
    "a layer used five times": (shared, X),
    "named input": (named_input_and_output, {"row": X}),
    "partly frozen": (frozen, X),
}


def trained(build, x, setting, **compiled):
    keras.utils.set_random_seed(1)
    model = build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss, **compiled)
    with rematerialized(model, setting):
        history = model.fit(x, Y, batch_size=16, epochs=2, shuffle=False, verbose=0).history
    return model, history


@pytest.fixture(autouse=True)
def seeds_put_back():
    from tfbig.backend.internals import keras_seed_state, tensorflow_seed_state

    with keras_seed_state(), tensorflow_seed_state():
        yield


@pytest.mark.parametrize(("build", "x"), MODELS.values(), ids=MODELS)
def test_training_gives_the_weights_and_losses_of_the_plain_model(build, x):
    plain, plain_history = trained(build, x, False)
    thrifty, history = trained(build, x, True)
    # The same sums of float32, computed twice; a gradient that is added up in another order may round otherwise.
    np.testing.assert_allclose(history["loss"], plain_history["loss"], rtol=1e-6)
    for ours, theirs in zip(thrifty.variables, plain.variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("segments", [2, 3, 6])
def test_any_number_of_segments_gives_the_same(segments):
    build = residual(keras.layers.LayerNormalization)
    _, plain = trained(build, X, False)
    _, history = trained(build, X, segments)
    np.testing.assert_allclose(history["loss"], plain["loss"], rtol=1e-6)


def test_several_steps_in_one_call_give_the_same():
    _, plain = trained(chain, X, False)
    _, together = trained(chain, X, True, steps_per_execution=3)
    np.testing.assert_allclose(together["loss"], plain["loss"], rtol=1e-6)


def test_tfbigs_fit_traces_anew_inside_the_block_and_after_it():
    count = tf.Variable(0)

    @keras.saving.register_keras_serializable("tests")
    class Counting(keras.layers.Layer):
        def call(self, inputs):
            count.assign_add(1)
            return 1.0 * inputs

    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((8,)), dense(8), Counting(), dense(8), dense(8), dense(3)])
    runs = []
    for setting in (False, 2, False):
        before = int(count)
        with rematerialized(model, setting):
            run = tfbig.fit(model, X, Y, batch_size=ROWS, epochs=3, verbose=0, shuffle=False)
        assert len(run.epoch) == 3
        runs.append(int(count) - before)
    # Once in each of three steps; twice where it stands in a segment that is computed again.
    assert runs[1] - runs[0] == 3
    assert runs[2] == 3


def test_a_block_runs_again_on_the_way_back_except_the_last_one():
    count = tf.Variable(0)

    @keras.saving.register_keras_serializable("tests")
    class Counting(keras.layers.Layer):
        def call(self, inputs):
            count.assign_add(1)
            return 1.0 * inputs

    inputs = keras.Input((8,))
    x = inputs
    for _ in range(4):
        x = keras.layers.Dense(8)(Counting()(x))
    model = keras.Model(inputs, x)
    runs = []
    for setting in (False, 2):
        with rematerialized(model, setting):
            before = int(count)

            @tf.function
            def gradient():
                with tf.GradientTape() as tape:
                    loss = tf.reduce_sum(model(tf.ones((2, 8)), training=True))
                return tape.gradient(loss, [v.value for v in model.trainable_variables])

            assert all(g is not None for g in gradient())
            runs.append(int(count) - before)
    assert runs == [4, 6]  # two of the four stand in the first of two segments


@pytest.mark.parametrize("setting", [True, 3])
def test_segments_share_the_models_variables_and_hold_each_once(setting):
    model = chain()
    segments = cut(model, None if setting is True else setting)
    mine = [id(v) for v in itertools.chain(*(s.variables for s in segments))]
    assert sorted(mine) == sorted(id(v) for v in model.variables)
    if setting == 3:
        assert len(segments) == 3


def test_segments_one_after_the_other_are_the_model():
    model = words()
    x = WORDS
    for segment in cut(model):
        x = segment(x)
    np.testing.assert_array_equal(x, model(WORDS))


def test_the_model_is_left_as_found_also_after_an_error():
    model = chain()
    config, names = model.get_config(), sorted(vars(model))
    before = model.call
    with pytest.raises(ZeroDivisionError), rematerialized(model, True):
        assert model.call != before
        raise ZeroDivisionError
    assert model.call == before
    assert sorted(vars(model)) == sorted({*names, "train_function", "test_function", "predict_function"})
    assert model.get_config() == config


def test_layers_keep_no_trace_of_the_segments():
    model = residual(keras.layers.LayerNormalization)()
    before = [len(layer._inbound_nodes) for layer in model.layers]
    for _ in range(2):
        with rematerialized(model, True):
            model(X, training=True)
    assert [len(layer._inbound_nodes) for layer in model.layers] == before


def test_predictions_inside_the_block_are_the_models_own():
    model = chain()
    plain = model.predict(X, verbose=0)
    with rematerialized(model, True):
        np.testing.assert_array_equal(model.predict(X, verbose=0), plain)


def test_a_model_trained_so_can_be_saved_and_loaded(tmp_path):
    model, _ = trained(chain, X, True)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


def with_penalty_in_call():
    @keras.saving.register_keras_serializable("tests")
    class Penalty(keras.layers.Layer):
        def call(self, inputs):
            self.add_loss(keras.ops.sum(inputs))
            return inputs

    layers = [keras.Input((8,))]
    for _ in range(3):
        layers += [keras.layers.Dense(8), Penalty()]
    return keras.Sequential([*layers, keras.layers.Dense(3)])


def two_strands():
    a = b = inputs = keras.Input((8,))
    for _ in range(3):
        a, b = keras.layers.Dense(8)(a), keras.layers.Dense(8)(b)
    return keras.Model(inputs, keras.layers.Add()([a, b]))


def masked():
    layers = [keras.layers.Masking(name="hide"), keras.layers.LSTM(4), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((5, 8)), *layers])


def active():
    layers = [keras.layers.Dense(8, activity_regularizer="l2", name="noisy"), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((8,)), *layers])


@pytest.mark.parametrize(
    ("build", "setting", "error", "message"),
    [
        (chain, 1, InvalidOption, "must be True, False or 2 segments and more; got 1"),
        (chain, "full", InvalidOption, "must be True, False or 2 segments and more; got 'full'"),
        (chain, 2.5, InvalidOption, "rematerialize must be a whole number"),
        (chain, 99, InvalidOption, "can be cut into at most 2[0-9] segments"),
        (Subclassed, True, InvalidModel, r"it is subclassed, .*Wrap a block's function in keras\.remat"),
        (two_strands, True, InvalidModel, "no place between two layers where a single tensor passes"),
        (masked, True, InvalidModel, "the masks of hide would be lost"),
        (active, True, InvalidModel, "the activity regularization of noisy would be lost"),
    ],
    ids=["one", "a mode", "fraction", "too many", "subclassed", "no cut", "masks", "activity"],
)
def test_what_cannot_be_rematerialized_is_refused_before_anything_changes(build, setting, error, message):
    model = build()
    before = sorted(vars(model))
    with pytest.raises(error, match=message), rematerialized(model, setting):
        pass
    assert sorted(vars(model)) == before


def test_synchronized_batch_normalization_is_refused_over_replicas_and_taken_on_one_device(monkeypatch):
    layers = [keras.layers.Dense(8), keras.layers.BatchNormalization(synchronized=True, name="together")]
    model = keras.Sequential([keras.Input((8,)), *layers, keras.layers.Dense(8), keras.layers.Dense(3)])
    assert len(cut(model, 2)) == 2
    two = SimpleNamespace(num_replicas_in_sync=2)
    monkeypatch.setattr(keras.Sequential, "distribute_strategy", property(lambda self: two))
    with pytest.raises(InvalidModel, match="together synchronize batch statistics between replicas"):
        cut(model, 2)


def test_a_layer_that_adds_a_loss_in_its_call_is_refused_when_the_step_is_made():
    with pytest.raises(InvalidModel, match="calls add_loss, so its block cannot be rematerialized"):
        trained(with_penalty_in_call, X, True)


def test_no_warning_comes_from_the_cuts():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        blocks = cut(words())
    assert len(blocks) > 1
    assert [str(warning.message) for warning in seen] == []


@pytest.mark.parametrize(
    ("mode", "between"),
    [("full", lambda: keras.layers.Dropout(0.5)), ("full", keras.layers.BatchNormalization)],
)
def test_the_scope_of_keras_itself_still_fails_in_fit(mode, between):
    """The reason why rematerialize.py cuts models itself; when this fails, Keras's own scope may serve."""
    keras.utils.set_random_seed(1)
    with keras.RematScope(mode):
        model = residual(between)()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="keywords arguments only when eager execution"):
        model.fit(X, Y, verbose=0)


def test_keras_remat_draws_a_new_dropout_mask_on_the_way_back():
    """The other reason: the gradient is then that of another mask than the loss."""
    block = keras.layers.Dropout(0.5, seed=1)
    remat = keras.remat(lambda x: block(x, training=True))

    @tf.function
    def masks():
        x = tf.ones(1000)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = remat(x)
        return y, tape.gradient(y, x)

    forward, backward = masks()
    assert not np.array_equal(forward, backward)


def test_in_mixed_precision_the_weights_are_those_of_the_plain_mixed_model():
    def build():
        with precision("mixed_bfloat16"):
            layers = [keras.layers.Dense(8, dtype="float32" if i % 2 else None) for i in range(6)]
            return keras.Sequential([keras.Input((8,)), *layers, keras.layers.Dense(3, dtype="float32")])

    plain, plain_history = trained(build, X, False)
    thrifty, history = trained(build, X, True)
    # The same roundings in the same places.
    np.testing.assert_allclose(history["loss"], plain_history["loss"], rtol=1e-6)
    for ours, theirs in zip(thrifty.variables, plain.variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)
