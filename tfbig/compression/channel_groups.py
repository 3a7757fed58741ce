"""The plan of a shrinking: which channels are chosen among together, and how many of them stay."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfbig.backend.internals import layers_inside
from tfbig.compression.channels import Trace
from tfbig.compression.targets import LayerChoice, check_finite, layer_paths
from tfbig.compression.tracing import trace
from tfbig.errors import InvalidModel, InvalidOption, did_you_mean
from tfbig.training import checks

Keep = float | Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Group:
    """Channel sets that the same layers make: some of them stay.

    Attributes:
        makers: Names of the layers that make them; several where their outputs are added.
        readers: Names of the layers whose kernels read them.
        sets: The channel sets, in order.
        share: Share that stays, in (0, 1].
    """

    makers: tuple[str, ...]
    readers: tuple[str, ...]
    sets: np.ndarray
    share: float

    def kept(self, progress: float = 1.0) -> int:
        """How many are to stay: all at progress 0, the share at 1, by even factors between; at least 1."""
        return max(1, int(len(self.sets) * self.share**progress + 0.5))


@dataclass(frozen=True, eq=False)
class Plan:
    """What can go, what stays and why. Made by `make_plan`.

    Attributes:
        trace: Where the channels stand.
        groups: What is chosen among.
        skipped: Name of each layer left whole to the reason.
    """

    trace: Trace
    groups: tuple[Group, ...]
    skipped: dict[str, str]


def make_plan(model: Any, keep: Keep, layers: LayerChoice = None) -> Plan:
    """Returns the plan for a model.

    Args:
        model: A built Sequential or functional model.
        keep: As in `shrink`.
        layers: As in `shrink`.

    Raises:
        InvalidOption: `keep` lies outside (0, 1], or a name in `keep` or `layers` matches none.
        InvalidModel: There is nothing to shrink, or the model's graph cannot be followed.
    """
    checks.is_model(model)
    shares = _check_keep(keep)
    paths = layer_paths(model)
    check_finite(model)
    found = trace(model, paths)
    for pattern in shares:
        # Of a model with nothing to shrink this is said below, with the reasons.
        if found.makers and not any(_matches(maker, pattern) for maker in found.makers):
            hint = did_you_mean(pattern, found.makers)
            raise InvalidOption(
                f"keep names {pattern!r}, which matches no layer that makes channels.{hint} "
                f"They are: {', '.join(found.makers)}."
            )
    chosen = _chosen(found, layer_paths(model, layers))
    skipped = dict(found.opaque)
    groups = []
    for makers, reason, sets in _by_makers(found):
        reason = reason or _unasked(makers, chosen, shares)
        if reason:
            skipped.update((maker, reason) for maker in makers if maker not in skipped)
        else:
            groups.append(Group(makers, _readers(found, sets, makers), sets, _share(makers, shares)))
    if not groups:
        raise InvalidModel(
            f"The model {model.name!r} has no channels that can go"
            + (f"; skipped: {skipped}." if skipped else ": none of its layers makes any.")
        )
    return Plan(found, tuple(groups), skipped)


def plan_again(model: Any, plan: Plan) -> Plan:
    """Returns the plan for a model that was made smaller by `plan`: the same groups, of the channels there are now."""
    found = trace(model, layer_paths(model))
    now = {makers: sets for makers, reason, sets in _by_makers(found) if not reason}
    groups = tuple(replace(group, sets=now[group.makers]) for group in plan.groups)
    return Plan(found, groups, plan.skipped)


def alive_after(plan: Plan, scores: Mapping[int, float], kept: Sequence[int]) -> np.ndarray:
    """Returns which channels stay, by their numbers: those of the highest scores in each group.

    Args:
        plan: What can go.
        scores: Importance of each channel set.
        kept: How many stay of each group.
    """
    alive = np.ones(len(plan.trace.sets), bool)
    roots = plan.trace.sets.roots(np.arange(len(alive)))
    for group, count in zip(plan.groups, kept, strict=True):
        # Stable: of equals the first stay.
        order = np.argsort([-scores[int(root)] for root in group.sets], kind="stable")
        alive[np.isin(roots, group.sets[order[count:]])] = False
    return alive


def _matches(maker: str, pattern: str) -> bool:
    # As in `find_targets`: naming a layer names what is inside it, such as its heads.
    return fnmatch.fnmatchcase(maker, pattern) or fnmatch.fnmatchcase(maker, f"{pattern}/*")


def _check_keep(keep: Any) -> dict[str, float]:
    if isinstance(keep, Mapping):
        if not keep:
            raise InvalidOption("keep names no layer; give a share, or a dict from layer name to share.")
        return {str(name): _check_share(share) for name, share in keep.items()}
    return {"*": _check_share(keep)}


def _check_share(share: Any) -> float:
    try:
        number = float("nan") if isinstance(share, bool) else float(share)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 < number <= 1:
        raise InvalidOption(
            f"keep must be a number in (0, 1], the share of channels that stays; got {share!r}."
        )
    return number


def _chosen(found: Trace, asked: Mapping[int, str]) -> set[str]:
    """The makers among the layers asked for; asking for the cell of a recurrent layer asks for the layer."""

    def holds(layer: Any) -> bool:
        return id(layer) in asked or any(holds(inner) for inner in layers_inside(layer))

    return {maker for maker, layer in found.layers.items() if holds(layer)}


def _by_makers(found: Trace) -> list[tuple[tuple[str, ...], str, np.ndarray]]:
    """All channel sets, those together that the same layers make and that stay for the same reason, if they must."""
    makers_of: dict[int, list[str]] = {}
    for maker, ids in found.makers.items():
        for root in dict.fromkeys(found.sets.roots(ids).tolist()):
            makers_of.setdefault(root, []).append(maker)
    together: dict[tuple[tuple[str, ...], str], list[int]] = {}
    for root, makers in makers_of.items():
        together.setdefault((tuple(makers), found.sets.reason(root)), []).append(root)
    return [(makers, reason, np.array(sorted(sets))) for (makers, reason), sets in together.items()]


def _unasked(makers: tuple[str, ...], chosen: set[str], shares: Mapping[str, float]) -> str:
    others = [
        maker
        for maker in makers
        if maker not in chosen or not any(_matches(maker, pattern) for pattern in shares)
    ]
    if not others:
        return ""
    if len(makers) == 1 or len(others) == len(makers):
        return "not among the layers asked for"
    return f"goes together with {', '.join(others)}, not among the layers asked for"


def _share(makers: tuple[str, ...], shares: Mapping[str, float]) -> float:
    asked = {
        maker: next(share for pattern, share in shares.items() if _matches(maker, pattern))
        for maker in makers
    }
    if len(set(asked.values())) > 1:
        raise InvalidOption(f"keep gives different shares to layers whose channels go together: {asked}.")
    return next(iter(asked.values()))


def _readers(found: Trace, sets: np.ndarray, makers: tuple[str, ...]) -> tuple[str, ...]:
    readers = [
        part.maker
        for part in found.slices.values()
        if part.reads is not None and np.isin(found.sets.roots(part.axes[part.reads]), sets).any()  # type: ignore[arg-type]
    ]
    return tuple(dict.fromkeys(reader for reader in readers if reader not in makers))
