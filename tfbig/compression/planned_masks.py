"""Masks that the compiled step itself sets anew when a plan says so: no call has to be cut for an update.

Keras applies constraints right after the optimizer has moved all kernels. The constraint of the first kernel counts
the step and looks it up in the plan; where an update is due it gives all kernels new masks, by which each is held
in the same step. Between updates this costs a look into a table.
"""

from typing import Any

import numpy as np

from tfbig.backend import keras, tf
from tfbig.compression.holding import Masked, masked
from tfbig.compression.masks import Pattern
from tfbig.compression.schedules import Update
from tfbig.compression.targets import Target

_NO_UPDATE = -1.0


class PlannedMasks:
    """The masks of one training, on the kernels from `__init__` to `take_off`.

    Attributes:
        targets: The kernels that are held.
    """

    def __init__(self, targets: list[Target], pattern: Pattern, variables: list[Any]):
        """Puts masks on that let everything through; in the scope of the strategy that trains the model.

        Args:
            targets: Kernels to hold.
            pattern: The form of the zeros.
            variables: All that the model trains, in the order in which the optimizer takes them.
        """
        self.targets = targets
        self._masks = [_state(tf.ones(target.kernel.shape, tf.bool)) for target in targets]
        self._steps = _state(tf.zeros((), tf.int32))
        self._plan = tf.constant([_NO_UPDATE])
        self._constraints = []
        for target, mask in zip(targets, self._masks, strict=True):
            constraint = Masked(mask, target.kernel.constraint, "Prune")
            target.kernel.constraint = constraint
            self._constraints.append(constraint)
        first = next(
            v for v in variables if isinstance(v.constraint, Masked) and v.constraint in self._constraints
        )
        first.constraint.before = self._in_step
        axes = [pattern.input_axis(target) for target in targets]

        @tf.function(autograph=False)
        def new_masks(sparsity: Any, *kernels: Any) -> list[Any]:
            return [tf.cast(mask, tf.bool) for mask in pattern.masks(list(kernels), sparsity, axes)]

        # A function of its own, so that steps which are traced many times over hold it once.
        specs = [tf.TensorSpec(target.kernel.shape, target.kernel.dtype) for target in targets]
        self._new_masks = new_masks.get_concrete_function(tf.TensorSpec((), tf.float32), *specs)

    def lay_out(self, updates: list[Update], total_steps: int, done: int) -> None:
        """Takes the plan, before the step is traced, and how many gradient steps of it are done."""
        plan = np.full(total_steps + 1, _NO_UPDATE, np.float32)
        for update in updates:
            plan[update.step] = update.sparsity
        self._plan = tf.constant(plan)
        self._steps.assign(done)

    def catch_up(self, done: int) -> bool:
        """Returns whether the step has counted less than this, and lets it go on from here.

        It counts less where the optimizer passes the first kernel over (no gradient reaches it), or where it was
        compiled before the masks were put on; more where the optimizer is called several times in a batch.
        """
        counted = int(self._steps.numpy())
        if counted != done:
            self._steps.assign(done)
        return counted < done

    def set_now(self, sparsity: float) -> None:
        """Sets masks and zeros between two steps."""
        new = self._new_masks(tf.constant(sparsity, tf.float32), *self._kernels())
        for target, mask, values in zip(self.targets, self._masks, new, strict=True):
            mask.assign(values)
            target.kernel.assign(masked(target.kernel, mask))

    def hold(self) -> None:
        """Puts zeros where the masks are: weight averaging or restored weights may have written over them."""
        for target, mask in zip(self.targets, self._masks, strict=True):
            target.kernel.assign(masked(target.kernel, mask))

    def take_off(self) -> None:
        """Gives the kernels the constraints back that they had."""
        for target, constraint in zip(self.targets, self._constraints, strict=True):
            target.kernel.constraint = constraint.inner

    def _in_step(self) -> None:
        """Counts a gradient step, after which masks are set anew if the plan says so."""
        steps = tf.convert_to_tensor(self._steps) + 1
        self._steps.assign(steps)
        sparsity = self._plan[tf.minimum(steps, len(self._plan) - 1)]
        # Masks are what the branches return: inside of one, replicas may not assign.
        new = tf.cond(
            sparsity != _NO_UPDATE,
            lambda: tuple(self._new_masks(sparsity, *self._kernels())),
            lambda: tuple(tf.convert_to_tensor(mask) for mask in self._masks),
        )
        for mask, values in zip(self._masks, new, strict=True):
            mask.assign(values)

    def _kernels(self) -> list[Any]:
        """The kernels as the constraints that they had leave them."""
        pairs = zip(self.targets, self._constraints, strict=True)
        kernels = [(target.kernel, constraint.inner) for target, constraint in pairs]
        return [tf.convert_to_tensor(kernel if inner is None else inner(kernel)) for kernel, inner in kernels]


def _state(value: Any) -> Any:
    """A variable that the compiled step may write; every replica writes the same."""
    return keras.Variable(value, trainable=False, dtype=value.dtype.name, aggregation="only_first_replica")
