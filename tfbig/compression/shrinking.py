"""Shrinking: whole units, filters and heads are removed, and what is left is a smaller plain Keras model."""

import warnings
from pathlib import Path
from typing import Any

from tfbig.compression.channel_groups import Keep, alive_after, make_plan, plan_again
from tfbig.compression.importance import Data, Importance, check_importance, score
from tfbig.compression.rebuilding import rebuild
from tfbig.compression.shrink_report import ShrinkReport, ShrunkChannels, size_of
from tfbig.compression.targets import LayerChoice
from tfbig.data.checking import is_stream
from tfbig.errors import InvalidData, InvalidOption
from tfbig.options import checked, positive_int
from tfbig.training.fit import fit


@checked(passes_on_to=fit)
def shrink(
    model: Any,
    x: Any = None,
    y: Any = None,
    *,
    keep: Keep = 0.5,
    importance: Importance = "l2",
    layers: LayerChoice = None,
    rounds: int = 1,
    **fit_options: Any,
) -> Any:
    """Returns a smaller model: a copy without the units, filters and heads that matter least, trained further.

    The graph is followed: channels that are added to each other go together, and what reads a channel becomes
    smaller with it. Before any training the smaller model gives, up to rounding, what the given one gives when
    nothing reads the channels that go. `shrink_plan` says beforehand what goes and what is left whole, and why.

    Args:
        model: A trained Keras model, Sequential or functional. It is not changed.
        x: As in `fit`, to train on after each round; None for no training.
        y: As in `fit`. Without targets an array serves "activation" only, and nothing is trained.
        keep: Share of the channels that stays, in (0, 1]; at least one of each layer does. Or a dict from layer
            name or pattern to share, the first that matches counting; layers that it does not name stay whole. A
            name stands for what is inside the layer too; the heads alone of an attention layer are "<layer>/heads".
            The model's outputs always stay whole.
        importance: What decides. By the kernels that make a channel: "l1" or "l2", the norm of its weights (Li et al.,
            2016, https://arxiv.org/abs/1608.08710). On up to 1,024 rows of x: "activation", the mean absolute value
            that is read of it; "taylor", how much the loss would change without it, to first order (Molchanov et
            al., 2019, https://arxiv.org/abs/1906.10771). "random" to compare with. Or a function of a layer's name
            and the weights of its kernels, shape (channels, weights per channel), that gives a score per channel.
        layers: Which layers' channels: names, patterns, layer types or a function, as in `Prune`; all by default.
            Channels that go together are chosen only where all their layers are.
        rounds: Steps in which the share is reached, by even factors, with training after each. The epochs are
            those of all rounds together.
        **fit_options: As in `fit`.

    Returns:
        A plain Keras model with the same layer names, compiled as the given one is. A warning names the layers that
        could not be followed and are left whole.

    Raises:
        InvalidOption: A value makes no sense, or an option of training comes without data.
        InvalidModel: The model cannot be followed, or no channel of it can go.
        InvalidData: The importance needs data that is not given.

    Example:
        >>> import tfbig
        >>> model = tfbig.models.mlp((16,), 2, hidden=(32, 8))
        >>> [layer.units for layer in tfbig.shrink(model, keep=0.25).layers if hasattr(layer, "units")]
        [8, 2, 2]
    """
    rounds = positive_int("rounds", rounds)
    check_importance(importance, x, y)
    epochs = _epochs(x, y, importance, rounds, fit_options)
    named = ("optimizer", "loss", "seed")
    data = Data(x, y, **{name: fit_options[name] for name in named if name in fit_options})
    plan = make_plan(model, keep, layers)
    if plan.trace.opaque:
        left = "; ".join(f"{name} ({reason})" for name, reason in plan.trace.opaque.items())
        warnings.warn(
            f"shrink leaves these layers of {model.name!r} whole, and what goes together with them, since it cannot "
            f"follow them: {left}. shrink_plan lists all that stays and why.",
            stacklevel=3,  # past the check of the options
        )
    aims = [[group.kept(done / rounds) for group in plan.groups] for done in range(1, rounds + 1)]
    smaller = model
    for done, kept in enumerate(aims):
        plan = plan_again(smaller, plan) if done else plan
        smaller = rebuild(
            smaller, plan.trace, alive_after(plan, score(smaller, plan, importance, data), kept)
        )
        if epochs:
            fit(smaller, x, y, **_options_of_round(fit_options, done, rounds), epochs=epochs[done])
    return smaller


def shrink_plan(model: Any, *, keep: Keep = 0.5, layers: LayerChoice = None) -> ShrinkReport:
    """Returns what `shrink` would do, before any work: which channels go, what stays whole and why, and the sizes.

    Args:
        model: A built Keras model, Sequential or functional. It is not changed.
        keep: As in `shrink`.
        layers: As in `shrink`.

    Returns:
        A `ShrinkReport`; `print` shows a line per group of channels, and parameters, MACs and bytes before and after.

    Raises:
        InvalidOption: A value makes no sense.
        InvalidModel: The model cannot be followed, or no channel of it can go.

    Example:
        >>> import keras, tfbig
        >>> layers = [keras.Input((16,)), keras.layers.Dense(32, name="hidden"), keras.layers.Dense(2, name="logits")]
        >>> print(tfbig.shrink_plan(keras.Sequential(layers), keep=0.25))
        hidden            8 of 32 channels, read by logits
        logits            skipped: its channels are the model's output
        parameters        610 → 154  (25.2%)
        MACs              576 → 144  (25.0%)
        bytes in float32  2,440 → 616  (25.2%)
        bytes in int8     712 → 184  (25.8%)
    """
    plan = make_plan(model, keep, layers)
    kept = [group.kept() for group in plan.groups]
    # Any choice of so many channels gives the same sizes.
    scores = dict.fromkeys((int(root) for group in plan.groups for root in group.sets), 0.0)
    smaller = rebuild(model, plan.trace, alive_after(plan, scores, kept))
    groups = [
        ShrunkChannels(group.makers, group.readers, len(group.sets), count)
        for group, count in zip(plan.groups, kept, strict=True)
    ]
    return ShrinkReport(tuple(groups), size_of(model), size_of(smaller), plan.skipped)


def _options_of_round(options: dict[str, Any], done: int, rounds: int) -> dict[str, Any]:
    """The options of training, without epochs; each round is resumed from a folder of its own."""
    kept = {name: value for name, value in options.items() if name != "epochs"}
    if rounds > 1 and kept.get("checkpoint_dir") is not None:
        kept["checkpoint_dir"] = Path(kept["checkpoint_dir"]) / f"round_{done + 1}"
    return kept


def _epochs(x: Any, y: Any, importance: Importance, rounds: int, options: dict[str, Any]) -> list[int]:
    """The epochs of each round; none where nothing is trained.

    Raises:
        InvalidOption: There are fewer epochs than rounds, or rounds or options of training without data.
        InvalidData: There are inputs to train on, but no targets.
    """
    if is_stream(x) or y is not None:
        total = positive_int("epochs", options.get("epochs", 10))
        if total < rounds:
            raise InvalidOption(
                f"epochs are those of all rounds together: {rounds} rounds need as many; got {total}."
            )
        return [total * (done + 1) // rounds - total * done // rounds for done in range(rounds)]
    if x is not None and importance != "activation":
        raise InvalidData("y is missing: x is an array, so its targets must be given too.")
    useless = sorted(set(options) - {"seed"}) + ["rounds"] * (rounds > 1)
    if useless:
        raise InvalidOption(f"{', '.join(useless)} need data to train on: pass x and y, or leave them out.")
    return []
