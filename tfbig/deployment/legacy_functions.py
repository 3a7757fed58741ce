"""Functions that legacy models use and Keras 3 computes differently."""

from typing import Any

from tfbig.backend import keras


@keras.saving.register_keras_serializable(package="tfbig")
def legacy_hard_sigmoid(x: Any) -> Any:
    """The hard sigmoid of Keras 1 and 2: 0.2·x + 0.5, kept within 0 and 1.

    Keras 3 gave the name `hard_sigmoid` to another function, relu6(x + 3) / 6. LSTM and GRU layers of Keras 1,
    and of Keras 2 before 2.3, use the old one by default.

    Args:
        x: A tensor.

    Returns:
        A tensor of its shape.

    Example:
        >>> legacy_hard_sigmoid(keras.ops.array([-3.0, 0.0, 1.0])).numpy().tolist()
        [0.0, 0.5, 0.699999988079071]
    """
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)
