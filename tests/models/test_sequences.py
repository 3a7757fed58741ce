import numpy as np
import pytest

from tfbig.backend import keras, tf
from tfbig.errors import InvalidData
from tfbig.models import mlp, rnn, transformer
from tfbig.models.sequences import check_tokens


@pytest.fixture(params=["sequential", "functional"])
def model(request):
    if request.param == "sequential":
        return rnn((4,), 2, vocabulary=9, units=(2,))
    return transformer((4,), 2, vocabulary=9, depth=1, width=4)


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_tokens_of_the_vocabulary_pass(model, dtype):
    check_tokens(model, np.array([[0, 1, 2, 3], [5, 6, 7, 8]], dtype))


@pytest.mark.parametrize("token", [9, -1, 2.5])
def test_a_token_outside_of_it_is_named_with_its_row(model, token):
    x = np.array([[0, 1, 2, 3], [5, token, 7, 8]])
    with pytest.raises(
        InvalidData, match=rf"knows the tokens 0 to 8; row 1 holds {token}.*larger vocabulary"
    ):
        check_tokens(model, x)


def test_inputs_by_name_are_looked_at_by_name():
    words, numbers = keras.Input((4,), dtype="int32", name="words"), keras.Input((2,), name="numbers")
    read = keras.layers.Flatten()(keras.layers.Embedding(9, 3)(words))
    model = keras.Model([words, numbers], keras.layers.Concatenate()([read, numbers]))
    good, far = np.full((2, 4), 8), np.full((2, 2), 99.0)
    check_tokens(model, {"words": good, "numbers": far})
    with pytest.raises(InvalidData, match="row 0 holds 9"):
        check_tokens(model, {"words": good + 1, "numbers": far})


def test_a_model_without_tokens_takes_any_numbers():
    check_tokens(mlp((4,), 2), np.full((2, 4), 99.5))


def test_the_embedding_of_a_quantized_model_is_found():
    import tfbig

    x, y = np.array([[0, 1, 2, 3], [5, 6, 7, 8]] * 4), np.array([0, 1] * 4)
    tf.config.run_functions_eagerly(True)
    try:
        model = rnn((4,), 2, vocabulary=9, embedding=2, units=(2,))
        model = tfbig.quantize_aware(model, x, y, epochs=1, verbose=0)
    finally:
        tf.config.run_functions_eagerly(False)
    check_tokens(model, x)
    with pytest.raises(InvalidData, match="knows the tokens 0 to 8; row 0 holds 9"):
        tfbig.fit(model, x + 9, y, verbose=0)
