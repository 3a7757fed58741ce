"""Constraints that a technique puts on kernels for one training, and how they come off again."""

from collections.abc import Callable
from typing import Any

from tfbig.backend import keras
from tfbig.errors import InvalidOption


class Holding(keras.constraints.Constraint):
    """What holds a kernel during one training, in place of the constraint that it had.

    Attributes:
        inner: The kernel's own constraint, or None. It acts on what the optimizer made of the kernel, before this one.
        holder: The callback that put it on, as messages name it.
    """

    def __init__(self, inner: Any, holder: str):
        self.inner, self.holder = inner, holder


class Masked(Holding):
    """Multiplies a kernel by its mask after each gradient step, inside the compiled step and on every replica.

    Attributes:
        mask: A variable of the kernel's shape.
        before: Is called in each step before the mask is looked at, and may change it; or None.
    """

    def __init__(self, mask: Any, inner: Any, holder: str):
        super().__init__(inner, holder)
        self.mask = mask
        self.before: Callable[[], None] | None = None

    def __call__(self, kernel: Any) -> Any:
        """Returns the kernel with zeros where its mask has them."""
        if self.before is not None:
            self.before()
        if self.inner is not None:
            kernel = self.inner(kernel)
        return masked(kernel, self.mask)


def masked(kernel: Any, mask: Any) -> Any:
    """Returns the kernel with 0.0 where the mask is 0; multiplying would leave -0.0, which compresses worse."""
    return keras.ops.where(keras.ops.cast(mask, "bool"), kernel, keras.ops.zeros((), kernel.dtype))


def take_off_leftovers(model: Any) -> None:
    """Frees the kernels that a training which was interrupted has left held.

    Keras tells every callback of a training its model before the first of them begins. What is found on the kernels
    then is left over; what is found later is of this training.
    """
    for variable in model.variables:
        constraint = variable.constraint
        while isinstance(constraint, Holding):
            constraint = variable.constraint = constraint.inner


def check_free(named: list[tuple[str, Any]], holder: str) -> None:
    """Raises `InvalidOption` if another callback of this training holds one of the kernels.

    Two of them would undo each other: each puts its own form on the kernel last.

    Args:
        named: Name and variable of each kernel.
        holder: The callback that asks, as the message names it.
    """
    held = {
        name: kernel.constraint.holder for name, kernel in named if isinstance(kernel.constraint, Holding)
    }
    if held:
        raise InvalidOption(
            f"{holder} cannot hold {', '.join(held)}: {' and '.join(sorted(set(held.values())))} does so in this "
            "training already, and one would undo the other. Train twice, first with Prune, then with Cluster, which "
            "keeps the zeros; or give each layers= of its own."
        )
