"""How many gradient steps run in one call of the compiled function."""

import contextlib
from collections.abc import Iterator
from typing import Any

from tfbig.backend import keras
from tfbig.backend.distribution import profiles_batches
from tfbig.options import positive_int

# Past this the gain is gone and the progress bar stands still too long.
MOST_STEPS_TOGETHER = 64
_BATCH_HOOKS = tuple(
    f"on_{which}batch_{moment}" for which in ("", "train_", "test_") for moment in ("begin", "end")
)
# Keras's own that look at each batch only to see that it is not the last one of an epoch.
_SAVE_BY_EPOCH = (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore)


def choose_steps(asked: int | str, most: int, callbacks: list[Any]) -> int:
    """Returns how many steps to compile into one call.

    Args:
        asked: A number, or "auto": as many as can be, up to 64, and 1 when a callback watches single batches. A
            callback that must act every so many steps says so by `steps_between`.
        most: Steps that "auto" may take for this data, such as those of an epoch.
        callbacks: The user's callbacks.

    Returns:
        The number, at least 1.
    """
    if asked != "auto":
        return positive_int("steps_per_execution", asked)
    if any(_watches_batches(callback) for callback in callbacks):
        return 1
    limits = [callback.steps_between for callback in callbacks if hasattr(callback, "steps_between")]
    return max(1, min([most, MOST_STEPS_TOGETHER, *limits]))


@contextlib.contextmanager
def steps_together(model: Any, steps: int) -> Iterator[None]:
    """Lets the model run so many steps in one call, for the block."""
    before = model.steps_per_execution
    if steps == before:
        yield
        return
    _set_steps(model, steps)
    try:
        yield
    finally:
        _set_steps(model, before)


def _watches_batches(callback: Any) -> bool:
    if hasattr(callback, "steps_between"):
        return False
    idle = [keras.callbacks.Callback, *_acting_by_epoch(callback)]
    return any(
        all(getattr(type(callback), hook, None) is not getattr(kind, hook) for kind in idle)
        or hook in vars(callback)
        for hook in _BATCH_HOOKS
    )


def _acting_by_epoch(callback: Any) -> list[Any]:
    """Keras's own kinds of callback that this one is of, and that are idle within an epoch, set up as it is."""
    kinds: list[Any] = []
    if getattr(callback, "save_freq", None) == "epoch":
        kinds += [kind for kind in _SAVE_BY_EPOCH if isinstance(callback, kind)]
    if (
        isinstance(callback, keras.callbacks.TensorBoard)
        and callback.update_freq == "epoch"
        and not profiles_batches(callback)
    ):
        kinds.append(keras.callbacks.TensorBoard)
    return kinds


def _set_steps(model: Any, steps: int) -> None:
    model.steps_per_execution = steps
    # Compiled functions hold the old number.
    model.train_function = model.test_function = model.predict_function = None
