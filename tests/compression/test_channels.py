"""Small models of many shapes, which every shrinking must follow. Weights are random: no bias or beta is zero."""

import keras
import numpy as np
import pytest

import tfbig
from tfbig.compression.channel_groups import alive_after, make_plan
from tfbig.compression.channels import ChannelSets
from tfbig.compression.importance import Data, score
from tfbig.compression.rebuilding import masked, rebuild

L = keras.layers


def mlp():
    x = keras.Input((6,))
    h = L.Dense(8, "sigmoid")(x)  # not zero at zero
    h = L.PReLU()(L.Dense(9)(h))
    return keras.Model(x, L.Dense(3)(h))


def plain_cnn():
    layers = []
    for filters in (6, 8):
        layers += [L.Conv2D(filters, 3, padding="same"), L.BatchNormalization(), L.ReLU(), L.MaxPooling2D()]
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            L.Rescaling(0.5),
            *layers,
            L.GlobalAveragePooling2D(),
            L.Dropout(0.5),
            L.Dense(3),
        ]
    )


def flatten_cnn():
    layers = [
        *(L.ZeroPadding2D(1), L.Conv2D(5, 3, activation="tanh"), L.Cropping2D(1)),
        *(L.Flatten(), L.BatchNormalization(), L.Dense(7, "gelu"), L.Dense(3, "softmax")),
    ]
    return keras.Sequential([keras.Input((6, 6, 1)), *layers])


def residual():
    def conv(filters, size=3, strides=1):
        return L.Conv2D(filters, size, strides, padding="same", use_bias=False)

    x = keras.Input((8, 8, 2))
    h = L.ReLU()(L.BatchNormalization()(conv(8)(x)))
    for filters, strides in ((8, 1), (8, 1), (12, 2), (12, 1)):
        inner = L.ReLU()(L.BatchNormalization()(conv(filters, 3, strides)(h)))
        inner = L.BatchNormalization()(conv(filters)(inner))
        if strides > 1:
            h = L.BatchNormalization()(conv(filters, 1, strides)(h))
        h = L.ReLU()(L.Add()([h, inner]))
    return keras.Model(x, L.Dense(3)(L.GlobalMaxPooling2D()(h)))


def depthwise_separable():
    x = keras.Input((8, 8, 3))
    h = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(6, 3, 2, padding="same", use_bias=False)(x)))
    for filters, strides, multiplier in ((8, 1, 1), (10, 2, 2)):
        depthwise = L.DepthwiseConv2D(3, strides, padding="same", depth_multiplier=multiplier)
        h = L.ReLU(6.0)(L.BatchNormalization()(depthwise(h)))
        h = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(filters, 1, use_bias=False)(h)))
    h = L.SeparableConv2D(7, 3, depth_multiplier=2, activation="relu", padding="same")(h)
    h = L.SeparableConv2D(5, 3, padding="same")(h)
    return keras.Model(x, L.Dense(3)(L.GlobalAveragePooling2D()(h)))


def squeeze_and_excite():
    x = keras.Input((6, 6, 2))
    h = L.Conv2D(8, 3, activation="relu", padding="same")(x)
    scale = L.Reshape((1, 1, 8))(L.GlobalAveragePooling2D()(h))
    scale = L.Dense(8, "sigmoid")(L.Dense(4, "relu")(scale))
    h = L.Multiply()([h, scale])
    h = L.Multiply()([h, L.Conv2D(1, 1, activation="sigmoid")(h)])  # one channel beside many
    return keras.Model(x, L.Dense(3)(L.Flatten()(h)))


def inception():
    x = keras.Input((8, 8, 2))
    h = L.Conv2D(6, 3, padding="same", activation="relu")(x)
    for _ in range(2):
        branches = [
            L.Conv2D(4, 1, padding="same", activation="relu")(h),
            L.Conv2D(5, 3, padding="same", activation="relu")(L.Conv2D(3, 1)(h)),
            L.Conv2D(3, 1)(L.MaxPooling2D(3, 1, padding="same")(h)),
        ]
        h = L.BatchNormalization()(L.Concatenate()(branches))
    # Added to the concatenated: one group for each branch.
    h = L.Average()([h, L.Conv2D(12, 1)(h)])
    return keras.Model(x, L.Dense(3)(L.Flatten()(h)))


def recurrent():
    stack = [
        *(
            L.Embedding(11, 6),
            L.LSTM(8, return_sequences=True),
            L.Bidirectional(L.GRU(5, return_sequences=True)),
        ),
        *(
            L.Bidirectional(L.LSTM(6, return_sequences=True), merge_mode="sum"),
            L.TimeDistributed(L.Dense(7, "relu")),
        ),
        *(L.SimpleRNN(6, return_sequences=True), L.GRU(5, reset_after=False), L.Dense(3)),
    ]
    return keras.Sequential([keras.Input((5,), dtype="int32"), *stack])


def encoder_decoder():
    x, before = keras.Input((5, 3)), keras.Input((4, 2))
    _, h, c = L.LSTM(6, return_state=True)(x)
    out = L.LSTM(6, return_sequences=True)(before, initial_state=[h, c])
    return keras.Model([x, before], L.Dense(3)(out[:, -1]))


def transformer():
    x = keras.Input((5, 8))
    h = L.LayerNormalization()(x)
    h = L.Add()([x, L.MultiHeadAttention(4, 3, dropout=0.1)(h, h, use_causal_mask=True)])
    mixed = L.LayerNormalization()(h)
    mixed = L.Dense(12, "gelu")(mixed)
    h = L.Add()([h, L.Dense(8)(mixed)])
    return keras.Model(x, L.Dense(3)(L.GlobalAveragePooling1D()(L.LayerNormalization()(h))))


def transformer_of_tokens():
    """Learned positions and an average over steps that count: the width can go where the norm is per channel."""
    options = {"vocabulary": 11, "padding": 0, "depth": 1, "width": 8, "heads": 2, "norm": "batch"}
    return tfbig.models.transformer((5,), 3, **options)


def attention_without_norm():
    x = keras.Input((5, 4))
    query, memory = L.Dense(8)(x), L.Conv1D(6, 2)(x)
    h = L.MultiHeadAttention(4, 3, value_dim=2)(query, memory)
    h = L.MultiHeadAttention(2, 3, output_shape=7)(query=h, value=memory, key=memory)
    return keras.Model(x, L.Dense(3)(h))


def autoencoder():
    x = keras.Input((8, 8, 1))
    h = L.Conv2D(6, 3, 2, padding="same", activation="relu")(x)
    h = L.Dense(10, "relu")(L.Flatten()(h))
    h = L.Reshape((4, 4, 5))(L.Dense(80, "relu")(h))
    h = L.Conv2DTranspose(6, 3, 2, padding="same", activation="relu")(h)
    h = L.UpSampling2D()(L.MaxPooling2D()(h))
    return keras.Model(x, L.Conv2DTranspose(1, 3, padding="same", activation="sigmoid")(h))


def sequence_cnn():
    stack = [
        *(L.Conv1D(6, 3, padding="causal"), L.GroupNormalization(3), L.Activation("silu")),
        *(
            L.Conv1D(12, 3, groups=6, padding="same"),
            L.SeparableConv1D(8, 3),
            L.GroupNormalization(-1),
            L.DepthwiseConv1D(2),
            L.AveragePooling1D(2),
        ),
        *(L.Conv1DTranspose(5, 2), L.Flatten(), L.Reshape((2, 15)), L.Dense(4), L.Flatten(), L.Dense(3)),
    ]
    return keras.Sequential([keras.Input((13, 2)), *stack])


def volumes():
    stack = [
        L.Conv3D(4, 2, activation="relu"),
        L.MaxPooling3D(),
        L.Conv3DTranspose(5, 2),
        L.GlobalAveragePooling3D(),
    ]
    return keras.Sequential([keras.Input((5, 5, 5, 1)), *stack, L.Dense(3)])


def einsum():
    x = keras.Input((4, 6))
    h = L.EinsumDense("abc,cd->abd", output_shape=(4, 8), bias_axes="d", activation="relu")(x)
    h = L.EinsumDense("...x,xy->...y", output_shape=7, bias_axes="y")(h)
    h = L.EinsumDense("abc,c->abc", output_shape=(4, 7))(h)
    h = L.EinsumDense("abc,bcd->ad", output_shape=5, bias_axes="d")(h)
    return keras.Model(x, L.Dense(3)(h))


def many_inputs_and_outputs():
    x, other = keras.Input((6, 6, 1), name="x"), keras.Input((3,), name="other")
    h = L.Flatten()(L.Conv2D(5, 3, activation="relu")(x))
    h = L.Concatenate()([h, L.Dense(6, "relu")(other)])
    h = L.Dense(8, "relu")(h)
    half = L.Dense(8, "relu")(other)
    return keras.Model(
        {"x": x, "other": other}, {"label": L.Dense(3)(h), "value": L.Dense(1)(h - half), "features": half}
    )


def nested_and_shared():
    inner = keras.Sequential([keras.Input((7,)), L.Dense(6, "relu"), L.Dense(5)], name="inner")
    a = keras.Input((7,))
    part = keras.Model(a, [L.Dense(4, "relu")(inner(a)), a * 2.0], name="part")
    x = keras.Input((3,))
    shared = L.Dense(7, "relu", name="shared")
    left, right = shared(x), shared(L.Dense(3, "tanh")(x))
    first, whole = part(left)
    second, _ = part(right)
    return keras.Model(x, L.Dense(3)(L.Concatenate()([first, second, whole])))


def opaque():
    x = keras.Input((6, 4))
    h = L.Dense(8, "relu", name="free")(x)
    h = L.Dense(6, name="before")(h)
    h = L.Permute((2, 1))(h)
    h = L.Dense(5, name="after")(h)
    h = L.Lambda(lambda t: t[..., ::-1], name="mirror")(h)
    return keras.Model(x, L.Dense(3, name="head")(L.Flatten()(h)))


ALL = (
    *(mlp, plain_cnn, flatten_cnn, residual, depthwise_separable, squeeze_and_excite, inception, recurrent),
    *(encoder_decoder, transformer, transformer_of_tokens, attention_without_norm, autoencoder, sequence_cnn),
    *(volumes, einsum, many_inputs_and_outputs, nested_and_shared, opaque),
)


def randomized(model, seed=0):
    """Sets every weight at random, variances above zero."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        values = generator.normal(scale=0.5, size=variable.shape)
        variable.assign(abs(values) + 0.5 if "variance" in variable.path else values)
    return model


def batch(model, rows=4, seed=0):
    """Random inputs in the structure that the model takes."""
    generator = np.random.default_rng(seed)

    def one(tensor):
        size = (rows, *tensor.shape[1:])
        return (
            generator.integers(0, 11, size)
            if "int" in tensor.dtype
            else generator.normal(size=size).astype("f4")
        )

    symbolic = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(one, symbolic)


@pytest.fixture(scope="module", params=ALL, ids=lambda build: build.__name__)
def case(request):
    """A model, its plan, which channels stay, and the shrunk and the masked model."""
    model = randomized(request.param())
    plan = make_plan(model, 0.4)
    kept = [group.kept() for group in plan.groups]
    alive = alive_after(plan, score(model, plan, "random", Data(seed=0)), kept)
    return model, plan, alive, rebuild(model, plan.trace, alive), masked(model, plan.trace, alive)


def test_the_shrunk_model_gives_what_the_masked_original_gives(case):
    model, plan, alive, smaller, zeroed = case
    x = batch(model)
    whole, theirs, ours = (keras.tree.flatten(one(x)) for one in (model, zeroed, smaller))
    for a, b in zip(theirs, ours, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        # The sums of floats have fewer terms and another order; nothing else differs.
        assert np.abs(a - b).max() <= 1e-5 * max(1, np.abs(a).max())
    # And the channels mattered, so that equality means something.
    assert max(np.abs(np.subtract(a, b)).max() for a, b in zip(whole, theirs, strict=True)) > 1e-2
    assert smaller.count_params() < model.count_params()


def test_every_group_keeps_its_share_and_every_other_channel_stays(case):
    model, plan, alive, *_ = case
    roots = plan.trace.sets.roots(np.arange(len(alive)))
    for group in plan.groups:
        expected = max(1, int(0.4 * len(group.sets) + 0.5))
        assert sum(alive[roots == root].all() for root in group.sets) == expected
    free = np.isin(roots, np.concatenate([group.sets for group in plan.groups]))
    assert alive[~free].all()


def test_names_kinds_and_the_given_model_stay(case):
    model, _, _, smaller, zeroed = case
    assert type(smaller) is type(model)
    assert [layer.name for layer in smaller.layers] == [layer.name for layer in model.layers]
    assert smaller.name == model.name
    fresh = randomized(zeroed)  # the same structure, the same seed: the weights that the model had at first
    assert all(np.array_equal(a, b) for a, b in zip(fresh.get_weights(), model.get_weights(), strict=True))


def test_the_shrunk_model_saves_and_loads(case, tmp_path, request):
    model, *_, smaller, _ = case
    if "opaque" in request.node.name:
        pytest.skip("Keras loads no Python lambda from a file")
    again = tfbig.load_model(tfbig.save_model(smaller, tmp_path / "smaller.keras"))
    x = batch(model)
    for a, b in zip(keras.tree.flatten(smaller(x)), keras.tree.flatten(again(x)), strict=True):
        assert np.array_equal(a, b)


def shifted(x):
    return x - 1


def groups(model, **options):
    return {
        " + ".join(group.makers): (group.channels, group.kept)
        for group in tfbig.shrink_plan(model, **options).groups
    }


def test_what_is_added_goes_together_and_what_is_concatenated_does_not():
    x = keras.Input((5,))
    a, b, c, d = (L.Dense(n, name=name)(x) for n, name in ((4, "a"), (6, "b"), (10, "c"), (8, "d")))
    h = L.Add()([L.Concatenate()([a, b]), c])
    model = keras.Model(x, L.Dense(2, name="head")(L.Concatenate()([h, d])))
    assert groups(model) == {"a + c": (4, 2), "b + c": (6, 3), "d": (8, 4)}


def test_a_residual_stream_on_the_input_stays_whole_and_is_listed():
    plan = tfbig.shrink_plan(transformer())
    kinds = [name.rstrip("_0123456789") for name in plan.skipped]
    assert kinds == ["multi_head_attention", "dense", "dense"]
    assert list(plan.skipped.values()) == ["goes together with the model's input"] * 2 + [
        "its channels are the model's output"
    ]


def test_a_normal_stream_that_a_norm_looks_at_stays_whole_and_is_listed():
    stack = [
        L.Dense(8, name="before"),
        L.LayerNormalization(name="norm"),
        L.Dense(8, name="after"),
        L.Dense(2),
    ]
    plan = tfbig.shrink_plan(keras.Sequential([keras.Input((4,)), *stack]))
    assert plan.skipped["before"] == (
        "goes into 'norm' (LayerNormalization), which takes its statistics over all channels"
    )
    assert [group.makers for group in plan.groups] == [("after",)]


def test_the_width_of_a_transformer_shrinks_with_its_learned_positions_but_not_with_sinusoidal_ones():
    plan = tfbig.shrink_plan(transformer_of_tokens())
    assert any("embedding" in name for group in plan.groups for name in group.makers)
    options = {"depth": 1, "width": 8, "heads": 2, "norm": "batch", "positions": "sinusoidal"}
    plan = tfbig.shrink_plan(tfbig.models.transformer((5, 3), 2, **options))
    assert plan.skipped["features"] == (
        "goes into 'positions' (Positions), which computes a wave for each channel from how many there are"
    )


def test_a_norm_over_steps_only_does_not_hold_channels():
    stack = [L.Dense(8, name="before"), L.LayerNormalization(axis=1), L.Dense(2)]
    model = randomized(keras.Sequential([keras.Input((5, 4)), *stack]))
    assert groups(model) == {"before": (8, 4)}
    assert tfbig.shrink(model)(batch(model)).shape == (4, 5, 2)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (L.Lambda(lambda x: x * 2, name="z"), "'z' (Lambda), which cannot be followed"),
        (L.Softmax(name="z"), "'z' (Softmax), which divides by a sum over all channels"),
        (L.Activation("softmax", name="z"), "'z' (Activation), which may look at all channels together"),
        (
            L.Activation(shifted, name="z"),
            "'z' (Activation), which may look at all channels together",
        ),
        (L.UnitNormalization(name="z"), "which takes its statistics over all channels"),
        (L.GroupNormalization(4, axis=1, name="z"), "which does not normalize along the last axis"),
        (L.BatchNormalization(axis=1, name="z"), "which does not normalize along the last axis"),
        (
            L.Normalization(mean=[1.0] * 8, variance=[2.0] * 8, name="z"),
            "which holds statistics of each channel",
        ),
        (L.Rescaling([2.0] * 8, name="z"), "which holds a scale of each channel"),
        (L.Masking(name="z"), "which masks steps by the values of all channels"),
        (L.Reshape((6, 16), name="z"), ""),
        (L.Reshape((4, 8, 3), name="z"), "which mixes channels with other axes"),
        (L.Permute((2, 1), name="z"), "which moves the channels to another axis"),
        (L.Conv1D(4, 2, groups=2, name="z"), ""),
        (L.GRU(3, stateful=True, return_sequences=True, name="z"), "which keeps its state between batches"),
        (L.TimeDistributed(keras.Sequential([L.Dense(2)]), name="z"), "which holds a whole model"),
        (L.EinsumDense("abc,bcd->abd", (12, 3), name="z"), ""),
        (L.EinsumDense("abc,bd->acd", (8, 3), name="z"), "where channels cannot be followed"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, L.Layer) else "",
)
def test_what_cannot_be_followed_keeps_its_input_whole_with_the_reason(layer, reason):
    x = keras.Input(batch_shape=(2, 12, 4))
    first = L.Dense(8, name="first")(x)
    free = L.Dense(6, name="free")(x)
    model = keras.Model(x, [L.Dense(2)(layer(first)), L.Dense(2)(free)])
    plan = tfbig.shrink_plan(model)
    assert ("free",) in [group.makers for group in plan.groups]
    assert any("first" in group.makers for group in plan.groups) == (not reason)
    assert reason in plan.skipped.get("first", "")


def test_arrays_of_fixed_values_among_the_arguments_keep_channels_whole():
    x = keras.Input((4,))
    first, second, third = (L.Dense(8, name=name)(x) for name in "abc")
    offset = np.arange(8, dtype="float32")
    outputs = [
        L.Dense(2)(h) for h in (first + offset, L.Add()([second, keras.ops.ones((1, 8))]), third * 2.0)
    ]
    plan = tfbig.shrink_plan(keras.Model(x, outputs))
    assert [group.makers for group in plan.groups] == [("c",)]
    assert plan.skipped["b"].endswith("(Add), which is given an array")


def test_a_shared_layer_of_which_one_call_cannot_be_followed_stays_whole():
    shared = L.GRU(8, name="shared")
    x = keras.Input((5, 4))
    states = [shared(x), shared(x, initial_state=keras.ops.ones((1, 8))), L.GRU(6, name="free")(x)]
    plan = tfbig.shrink_plan(keras.Model(x, L.Dense(2)(L.Concatenate()(states))))
    assert plan.skipped["shared"] == "a GRU, which is given an array"
    assert [group.makers for group in plan.groups] == [("free",)]


def test_an_adapted_normalization_keeps_what_it_has_learnt():
    normalization = L.Normalization()
    rows = np.random.default_rng(0).normal(5, 3, size=(100, 4)).astype("float32")
    normalization.adapt(rows)
    model = keras.Sequential([keras.Input((4,)), normalization, L.Dense(8), L.Dense(2)])
    smaller = tfbig.shrink(model)
    assert np.array_equal(smaller.layers[0](rows), normalization(rows))


def test_channels_first_is_left_whole():
    model = keras.Sequential(
        [
            keras.Input((2, 6, 6)),
            L.Conv2D(4, 3, data_format="channels_first", name="conv"),
            L.Flatten(),
            L.Dense(3),
        ]
    )
    x = keras.Input((2, 6, 6))
    model = keras.Model(x, L.Dense(3)(L.Dense(4)(L.Flatten()(model.layers[0](x)))))
    plan = tfbig.shrink_plan(model)
    assert plan.skipped["conv"] == "a Conv2D, which has its channels first"


def test_a_subclass_of_a_known_layer_may_do_anything_and_is_left_whole():
    class Mixed(L.Dense):
        def call(self, x):
            return keras.ops.flip(super().call(x), axis=-1)

    stack = [L.Dense(8, name="before"), Mixed(6, name="mixed"), L.Dense(5, name="after"), L.Dense(2)]
    plan = tfbig.shrink_plan(keras.Sequential([keras.Input((4,)), *stack]))
    assert plan.skipped["before"] == "goes into 'mixed' (Mixed), which cannot be followed"
    assert plan.skipped["mixed"] == "a Mixed, which cannot be followed"
    assert [group.makers for group in plan.groups] == [("after",)]


def test_attention_scores_that_are_given_out_keep_their_heads():
    x = keras.Input((5, 4))
    h, scores = L.MultiHeadAttention(4, 2, name="attention")(L.Dense(8)(x), x, return_attention_scores=True)
    plan = tfbig.shrink_plan(keras.Model(x, [L.Dense(2)(h), scores]))
    assert plan.skipped["attention/heads"].endswith("which gives out the scores of each head")
    assert ("attention",) in [group.makers for group in plan.groups]


def test_a_group_norm_loses_whole_groups():
    stack = [L.Dense(12, name="dense"), L.GroupNormalization(4), L.Dense(2)]
    model = keras.Sequential([keras.Input((3,)), *stack])
    # The last group has the largest weights, then the first.
    model.layers[0].kernel.assign(np.repeat([[3.0, 1, 2, 4]], 3, axis=1) * np.ones((3, 1)))
    smaller = tfbig.shrink(model)
    assert smaller.layers[0].units == 6
    assert smaller.layers[1].groups == 2
    assert smaller.layers[0].kernel.numpy()[0].tolist() == [3, 3, 3, 4, 4, 4]


def test_an_initial_array_of_the_old_shape_does_not_stand_in_the_way():
    matrix = keras.initializers.Constant(np.ones((7, 8), "float32"))
    stack = [L.Embedding(7, 8, embeddings_initializer=matrix), L.LSTM(4), L.Dense(2)]
    smaller = tfbig.shrink(keras.Sequential([keras.Input((5,), dtype="int32"), *stack]))
    assert smaller.layers[0].output_dim == 4


def test_frozen_layers_stay_frozen():
    inner = keras.Sequential([keras.Input((6,)), L.Dense(8), L.Dense(4)], name="inner")
    inner.trainable = False
    frozen = L.Dense(8, trainable=False, name="frozen")
    smaller = tfbig.shrink(keras.Sequential([keras.Input((6,)), inner, frozen, L.Dense(2)]))
    assert [len(layer.trainable_weights) for layer in smaller.layers] == [0, 0, 2]


def test_channel_sets_are_tied_transitively_and_keep_their_first_reason():
    sets = ChannelSets()
    a, b, c = sets.new(2), sets.new(2), sets.new(2)
    sets.lock(c[:1], "first")
    sets.tie(a, b)
    sets.tie(b, c)
    sets.lock(a[:1], "second")
    assert sets.roots(c).tolist() == [0, 1]
    assert [sets.reason(0), sets.reason(1)] == ["first", ""]
