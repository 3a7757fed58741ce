"""Activation functions in the form that integer files compute: each value on the way has a range that its levels fill.

LiteRT's converter gives the operands of a minimum, a maximum and a selection the scale of the result, which clips an
operand that is read elsewhere; exp(x) of a large x takes all levels for itself; and there is no integer SQUARE, NEG or
ELU that the converter uses.
"""

from collections.abc import Callable
from typing import Any

from tfbig.backend import keras, tf
from tfbig.layers.rounding import RoundedInside, Rounding, as_it_is

_L = keras.layers
# Klambauer et al. 2017, https://arxiv.org/abs/1706.02515, equation 14.
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def elu(x: Any, alpha: float = 1.0, rounding: Rounding = as_it_is) -> Any:
    """Returns x where it is positive and alpha·(exp(x) − 1) elsewhere."""
    return _exponential_below(tf.convert_to_tensor(x), alpha, 1.0, rounding)


def selu(x: Any, rounding: Rounding = as_it_is) -> Any:
    """Returns `elu` of a fixed alpha, scaled."""
    return rounding("elu", elu(x, _SELU_ALPHA, rounding)) * _SELU_SCALE


def celu(x: Any, alpha: float = 1.0, rounding: Rounding = as_it_is) -> Any:
    """Returns x where it is positive and alpha·(exp(x / alpha) − 1) elsewhere."""
    return _exponential_below(tf.convert_to_tensor(x), alpha, 1.0 / alpha, rounding)


def softplus(x: Any, rounding: Rounding = as_it_is) -> Any:
    """Returns log(exp(x) + 1)."""
    x = tf.convert_to_tensor(x)
    size = rounding("size", tf.abs(x))
    powers = rounding("powers", tf.exp(rounding("less_size", size * -1.0)))
    return rounding("above", tf.nn.relu(x)) + rounding("log", tf.math.log(rounding("more", powers + 1.0)))


def log_sigmoid(x: Any, rounding: Rounding = as_it_is) -> Any:
    """Returns log(sigmoid(x))."""
    mirrored = rounding("mirrored", tf.convert_to_tensor(x) * -1.0)
    return rounding("softplus", softplus(mirrored, rounding)) * -1.0


def mish(x: Any, rounding: Rounding = as_it_is) -> Any:
    """Returns x·tanh(softplus(x))."""
    return x * rounding("tanh", tf.tanh(rounding("softplus", softplus(x, rounding))))


def squareplus(x: Any, b: float = 4, rounding: Rounding = as_it_is) -> Any:
    """Returns (x + √(x² + b)) / 2."""
    x = tf.convert_to_tensor(x)
    root = rounding("root", tf.sqrt(rounding("more", rounding("square", x * x) + b)))
    return rounding("sum", x + root) / 2


def soft_shrink(x: Any, threshold: float = 0.5, rounding: Rounding = as_it_is) -> Any:
    """Returns x moved towards 0 by the threshold, and 0 where it is nearer than that."""
    x = tf.convert_to_tensor(x)
    below = tf.nn.relu(rounding("mirrored", x * -1.0) - threshold)
    return rounding("above", tf.nn.relu(x - threshold)) - rounding("below", below)


def sparse_plus(x: Any, rounding: Rounding = as_it_is) -> Any:
    """Returns 0 below −1, x above 1, and (x + 1)² / 4 in between."""
    x = tf.convert_to_tensor(x)
    above = rounding("above", tf.nn.relu(x - 1))
    # x, kept within -1 and 1, plus 1
    between = rounding("between", rounding("from_below", tf.nn.relu(x + 1)) - above)
    return above + rounding("quarter", rounding("square", between * between) / 4)


def hard_sigmoid(x: Any, rounding: Rounding = as_it_is) -> Any:
    """Returns (x + 3) / 6, kept within 0 and 1."""
    return rounding("sixfold", tf.nn.relu6(tf.convert_to_tensor(x) + 3.0)) * (1 / 6)


def hard_tanh(x: Any, rounding: Rounding = as_it_is) -> Any:
    """Returns x, kept within −1 and 1."""
    x = tf.convert_to_tensor(x)
    above, from_below = rounding("above", tf.nn.relu(x - 1)), rounding("from_below", tf.nn.relu(x + 1))
    return rounding("moved", from_below - above) - 1.0


def tanh_shrink(x: Any, rounding: Rounding = as_it_is) -> Any:
    """Returns x − tanh(x)."""
    return x - rounding("tanh", tf.tanh(x))


def softsign(x: Any, rounding: Rounding = as_it_is) -> Any:
    """Returns x / (|x| + 1)."""
    return x / rounding("more", rounding("size", tf.abs(x)) + 1.0)


# By the names of `keras.activations`.
FORMS: dict[str, Callable[..., Any]] = {
    form.__name__: form
    for form in (
        *(elu, selu, celu, softplus, log_sigmoid, mish, squareplus, soft_shrink, sparse_plus),
        *(hard_sigmoid, hard_tanh, tanh_shrink, softsign),
    )
}


def _exponential_below(x: Any, alpha: float, rate: float, rounding: Rounding) -> Any:
    below = rounding("below", tf.nn.relu(x * -1.0))  # not by NEG
    powers = rounding("powers", tf.exp(rounding("exponent", below * -rate)))
    return rounding("above", tf.nn.relu(x)) + rounding("scaled", alpha * rounding("less", powers - 1.0))


@keras.saving.register_keras_serializable(package="tfbig")
class QuantizedFunction(RoundedInside):
    """An activation, by a layer that is or applies one of `FORMS`, with every value on the way rounded."""

    def parts(self) -> tuple[str, ...]:
        """Names of the intermediate values."""
        seen: list[str] = []

        def noted(part: str, value: Any) -> Any:
            seen.append(part)
            return value

        self._form(tf.zeros([1]), noted)
        return tuple(seen)

    def call(self, inputs: Any, training: bool = False, place: int = 0) -> Any:
        """Applies the function to `inputs`; the result has their shape."""
        return self._form(tf.cast(inputs, tf.float32), self.rounding(training, place))

    def _form(self, x: Any, rounding: Rounding) -> Any:
        if isinstance(self.layer, _L.ELU):
            return elu(x, self.layer.alpha, rounding)
        return FORMS[self.layer.activation.__name__](x, rounding=rounding)
