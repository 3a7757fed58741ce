"""When kernels are pruned and how far: TFMOT's schedules, laid out as a plan before training starts."""

from dataclasses import dataclass
from typing import Any

from tfbig.backend import tf
from tfbig.backend.pruning import schedules
from tfbig.errors import InvalidOption
from tfbig.options import fraction

# Of the default schedule: kernels thin out over this share of the training, and heal in the rest.
_THINNING_SHARE = 0.6
_UPDATES = 20
# Schedules compute in float32; shares of zeros that differ by less are the same.
_SAME = 1e-5


@dataclass(frozen=True)
class Update:
    """One point of a plan: after `step` gradient steps, masks are set anew to `sparsity`."""

    step: int
    sparsity: float


def default_schedule(sparsity: float, total_steps: int) -> Any:
    """Returns the cubic schedule of Zhu and Gupta (https://arxiv.org/abs/1710.01878), from 0 to `sparsity`.

    It prunes 20 times (or at every step, when there are fewer) over the first 60% of the training.
    """
    frequency = max(1, int(total_steps * _THINNING_SHARE) // _UPDATES)
    # The last update is due where the schedule ends, so the number of steps must be a multiple.
    end = max(1, int(total_steps * _THINNING_SHARE) // frequency * frequency)
    return schedules().PolynomialDecay(
        initial_sparsity=0.0, final_sparsity=sparsity, begin_step=0, end_step=end, frequency=frequency
    )


def check_aim(schedule: Any, sparsity: float | None, m_by_n: tuple[int, int] | None) -> float | None:
    """Returns the sparsity that a user's choice aims at, None if a schedule does not say.

    With `m_by_n` a schedule may come along: it says when masks are set, as the form says how many zeros they have.

    Raises:
        InvalidOption: None or several, a sparsity outside [0, 1), or something that is no schedule.
    """
    given = {"sparsity": sparsity, "schedule": schedule, "m_by_n": m_by_n}
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1 and names != ["schedule", "m_by_n"]:
        raise InvalidOption(
            "Give one of sparsity= (the default schedule leads there), schedule= (which holds its own) and m_by_n= "
            f"(m zeros of every n, with or without a schedule); got {' and '.join(names) or 'none'}."
        )
    if schedule is not None and not isinstance(schedule, schedules().PruningSchedule):
        raise InvalidOption(
            "schedule must be a tfmot.sparsity.keras.PruningSchedule, such as PolynomialDecay; got "
            f"{type(schedule).__name__}."
        )
    if m_by_n is not None:
        return m_by_n[0] / m_by_n[1]
    if schedule is None:
        return fraction("sparsity", sparsity)
    return getattr(schedule, "final_sparsity", getattr(schedule, "target_sparsity", None))


def frequency_of(schedule: Any) -> int:
    """Returns the steps between two updates; 1 for a schedule that does not say."""
    return max(1, int(getattr(schedule, "frequency", 1)))


def plan(schedule: Any, total_steps: int, *, sparsity_counts: bool = True) -> list[Update]:
    """Returns every update that the schedule makes in a training of so many gradient steps.

    Args:
        schedule: A TFMOT `PruningSchedule`.
        total_steps: Gradient steps of the training.
        sparsity_counts: Whether the sparsity where the schedule leads must be reached; not so for m zeros of n.

    Returns:
        The updates in order. Update n comes after n gradient steps.

    Raises:
        InvalidOption: The schedule would end after the training does, never prunes in it, or makes its last update
            before its final sparsity.
    """
    end = getattr(schedule, "end_step", -1)
    if end >= total_steps:
        raise InvalidOption(
            f"The schedule ends at step {end}, but training has {total_steps} steps (0 to {total_steps - 1}), so "
            "the final sparsity would never be reached. Train for more epochs or end the schedule earlier."
        )

    @tf.function
    def answers(steps: Any) -> Any:
        kinds = (tf.TensorSpec((), tf.bool), tf.TensorSpec((), tf.float32))
        return tf.map_fn(lambda step: schedule(step), steps, fn_output_signature=kinds)

    # Concrete: TensorFlow would warn of a function that is made anew for each plan, which is meant here.
    concrete = answers.get_concrete_function(tf.TensorSpec((None,), tf.int32))
    due, sparsities = (answer.numpy().tolist() for answer in concrete(tf.range(total_steps, dtype=tf.int32)))
    updates = [Update(step, sparsities[step]) for step, is_due in enumerate(due) if is_due]
    if not updates:
        raise InvalidOption(f"The schedule never prunes in the {total_steps} steps of this training.")
    reached, aim = updates[-1].sparsity, sparsities[-1]
    if sparsity_counts and abs(reached - aim) > _SAME:
        raise InvalidOption(
            f"The schedule leads to a sparsity of {aim:.4g}, but its last update in the {total_steps} steps of this "
            f"training is at step {updates[-1].step}, to {reached:.4g}. Let end_step - begin_step be a multiple of "
            f"frequency ({frequency_of(schedule)}), so that it updates where it ends."
        )
    return updates
