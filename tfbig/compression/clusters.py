"""Weight clustering: kernels of few distinct values, which compress to a fraction of their size."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfbig.backend import keras
from tfbig.backend.clustering import INITIALIZERS
from tfbig.compression.centroids import SharedWeights, most_distinct
from tfbig.compression.copies import copy_model
from tfbig.compression.holding import check_free, take_off_leftovers
from tfbig.compression.kept import is_pruned
from tfbig.compression.targets import LayerChoice, Target, find_targets, those_that_train
from tfbig.errors import InvalidOption, unknown_choice
from tfbig.options import checked, positive_int
from tfbig.records import Record
from tfbig.training import checks
from tfbig.training.fit import fit

# TFMOT's names of the same options, for those who bring their settings along.
_TFMOT_NAMES = {
    "number_of_clusters": "clusters",
    "cluster_centroids_init": "init",
    "cluster_per_channel": "per_channel",
}


@dataclass(frozen=True)
class LayerClusters(Record):
    """The distinct values of one kernel.

    Attributes:
        name: Of the layer.
        weights: Values in the kernel.
        distinct: How many of them differ, as float32; 0 counts as one.
        distinct_per_channel: The most that differ within one output channel (last axis).
        zeros: How many weights are exactly 0.
        bits: Bits per weight by entropy: what an ideal code for the values, each by its own frequency, would take
            (Shannon, 1948, A Mathematical Theory of Communication).
    """

    name: str
    weights: int
    distinct: int
    distinct_per_channel: int
    zeros: int
    bits: float


@dataclass(frozen=True)
class ClusterReport(Record):
    """The distinct values of every kernel of a model.

    Attributes:
        layers: A `LayerClusters` per kernel, in the model's order.
        skipped: Layer name to the reason why it was left alone.
    """

    layers: tuple[LayerClusters, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def bits(self) -> float:
        """Bits per weight by entropy, over all kernels together."""
        return sum(layer.bits * layer.weights for layer in self.layers) / sum(
            layer.weights for layer in self.layers
        )

    def __str__(self) -> str:
        width = max(len(name) for name in [*(layer.name for layer in self.layers), *self.skipped, "all"])
        lines = [
            f"{layer.name:{width}}  {layer.distinct:6,} values, {layer.zeros / layer.weights:6.1%} zeros, "
            f"{layer.bits:5.2f} bits, of {layer.weights:,} weights"
            for layer in self.layers
        ]
        lines += [f"{name:{width}}  skipped: {reason}" for name, reason in self.skipped.items()]
        return "\n".join([*lines, f"{'all':{width}}  {self.bits:.2f} bits per weight"])


class Cluster(keras.callbacks.Callback):
    """Lets the weights of each kernel share a few values while a model trains, in tfbig's `fit` or a bare one.

    The model needs no wrapper and no new compile (a loop of your own calls it as
    `examples/compress_in_your_own_loop.py` shows): the weights are shared inside the compiled step. When training
    ends the model is a plain Keras model again, each kernel of at most `clusters` distinct values. Training on
    without this callback moves them apart. Among callbacks that put weights back, this one comes last. A layer that is
    frozen is skipped.

    Attributes:
        report: After training, a `ClusterReport`: the distinct values per kernel, what was skipped.
    """

    @checked(also_known_as=_TFMOT_NAMES)
    def __init__(
        self,
        clusters: int = 16,
        *,
        init: str = "kmeans++",
        per_channel: bool = False,
        preserve_sparsity: bool | str = "auto",
        layers: LayerChoice = None,
    ):
        """Checks the options; nothing happens to a model yet. TFMOT's parameter names are taken too.

        Args:
            clusters: Distinct values per kernel, at least 2. Where zeros are kept, 0 is one of them, as in TFMOT, and
                at least 3 are needed.
            init: Where the values start: "kmeans++", "density", "linear" or "random", or TFMOT's
                `CentroidInitialization`. A few rounds of k-means follow, then training. "linear" keeps its equal steps
                instead: most weights share the middle ones, so that the compressed file is the smallest.
            per_channel: Gives each output channel (last axis) its own values.
            preserve_sparsity: Whether zeros stay zero. "auto" keeps them in kernels of at least 5% zeros,
                unless they hold nothing else.
            layers: Which kernels, as in `Prune`.

        Raises:
            InvalidOption: A value makes no sense.

        Example:
            >>> import numpy as np, tfbig
            >>> model = tfbig.models.mlp((16,), 4)
            >>> model.compile("adam", "sparse_categorical_crossentropy")
            >>> few = tfbig.Cluster(8)
            >>> history = model.fit(np.ones((64, 16)), np.zeros(64), callbacks=[few], verbose=0)
            >>> max(layer.distinct for layer in few.report.layers)
            8
        """
        super().__init__()
        self.clusters = positive_int("clusters", clusters, minimum=2)
        self.init = _check_init(init)
        if per_channel not in (True, False):
            raise unknown_choice("per_channel", per_channel, (True, False))
        if preserve_sparsity not in ("auto", True, False):
            raise unknown_choice("preserve_sparsity", preserve_sparsity, ("auto", True, False))
        self.per_channel, self.preserve_sparsity, self.layers = per_channel, preserve_sparsity, layers
        self.report: ClusterReport | None = None
        self._installed: list[tuple[Target, SharedWeights]] = []

    def set_model(self, model: Any) -> None:
        """Takes the model, and the constraints off it that a training which was interrupted has left."""
        super().set_model(model)
        take_off_leftovers(model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Finds the kernels and puts each on its first centroids."""
        targets, self._skipped = self._find(self.model)
        self._began = False
        check_free([(target.name, target.kernel) for target in targets], "Cluster")
        with self.model.distribute_strategy.scope():
            for target in targets:
                self._install(target)
        # fit made its step function before this hook; made again, it traces with the constraints.
        self.model.make_train_function(force=True)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes that something trains; a finished training that is resumed begins no epoch."""
        self._began = True

    def on_train_end(self, logs: Any = None) -> None:
        """Makes the shared values final, measures them, and leaves a plain model."""
        if self._began and not any(constraint.is_in_step for _, constraint in self._installed):
            warnings.warn(
                "No gradient step has shared the weights, so the shared values were not trained: the step was compiled "
                "before Cluster's on_train_begin was called. Make it after that.",
                stacklevel=2,
            )
        for target, constraint in self._installed:
            # Weight averaging may have written between the centroids.
            constraint.share(target.kernel)
        self.report = _measured([target for target, _ in self._installed], self._skipped)
        self.release()

    def release(self) -> None:
        """Takes the constraints off the model; kernels keep their values until they are trained again."""
        for target, constraint in self._installed:
            target.kernel.constraint = constraint.inner
        self._installed = []
        # The compiled step holds the constraints too.
        self.model.train_function = None

    def _find(self, model: Any) -> tuple[list[Target], dict[str, str]]:
        targets, skipped = find_targets(model, self.layers)
        targets, still = those_that_train(model, targets)
        skipped.update(still)
        sizes = {target.name: int(np.prod(target.kernel.shape)) for target in targets}
        if self.per_channel:
            sizes = {target.name: sizes[target.name] // target.kernel.shape[-1] for target in targets}
        small = [f"{name} ({size})" for name, size in sizes.items() if size < self.clusters]
        if small:
            raise InvalidOption(
                f"clusters={self.clusters} is more than there are weights{' per channel' * self.per_channel} in "
                f"{', '.join(small)}. Ask for fewer, or choose the other layers with layers=."
            )
        if self.clusters == 2:
            sparse = [target.name for target in targets if self._keeps_zeros(target)]
            if sparse:
                raise InvalidOption(
                    f"clusters must be at least 3 where zeros are kept, since 0 is one of them; got 2, for "
                    f"{', '.join(sparse)}. preserve_sparsity=False gives the zeros up."
                )
        return targets, skipped

    def _keeps_zeros(self, target: Target) -> bool:
        if self.preserve_sparsity == "auto":
            return is_pruned(target.kernel.numpy())
        return bool(self.preserve_sparsity)

    def _install(self, target: Target) -> None:
        keep_zeros = self._keeps_zeros(target)
        constraint = SharedWeights(target.kernel, self.clusters, self.init, keep_zeros, self.per_channel)
        constraint.share(target.kernel)
        target.kernel.constraint = constraint
        self._installed.append((target, constraint))


@checked(passes_on_to=fit, also_known_as=_TFMOT_NAMES)
def cluster(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    clusters: int = 16,
    init: str = "kmeans++",
    per_channel: bool = False,
    preserve_sparsity: bool | str = "auto",
    layers: LayerChoice = None,
    **fit_options: Any,
) -> Any:
    """Returns a copy of the model, trained further while the weights of each kernel share a few values.

    The values train too: each by the steps of the weights that share it (Han et al., 2015,
    https://arxiv.org/abs/1510.00149). Sixteen values take four bits a weight at most, once the file is compressed.

    Args:
        model: A trained Keras model, Sequential or functional. It is not changed.
        x: As in `fit`.
        y: As in `fit`.
        clusters: Distinct values per kernel, at least 2. Where zeros are kept, 0 is one of them, as in TFMOT.
        init: Where the values start: "kmeans++", "density", "linear" or "random". k-means stays closest to the weights;
            "linear", equal steps, compresses best.
        per_channel: Gives each output channel (last axis) its own values.
        preserve_sparsity: Whether zeros stay zero. "auto" keeps them in kernels of at least 5% zeros.
        layers: Which kernels, as in `Prune`.
        **fit_options: As in `fit`.

    Returns:
        A plain Keras model whose kernels hold at most `clusters` distinct values each. `clusters(model)` counts them.

    Raises:
        InvalidOption: A value makes no sense, or a kernel has fewer weights than `clusters`.
        InvalidModel: The model has no kernel, or cannot be copied.

    Example:
        >>> import numpy as np, tfbig
        >>> x = np.random.default_rng(0).normal(size=(64, 16)); y = (x[:, 0] > 0).astype(int)
        >>> shared = tfbig.cluster(tfbig.models.mlp((16,), 2), x, y, clusters=4, epochs=2, verbose=0)
        >>> [layer.distinct for layer in tfbig.clusters(shared).layers]
        [4, 4, 4]
    """
    callback = Cluster(
        clusters, init=init, per_channel=per_channel, preserve_sparsity=preserve_sparsity, layers=layers
    )
    callback._find(model)  # what cannot be clustered is said before the model is copied
    shared = copy_model(model, "Cluster")
    others = checks.callbacks(fit_options.pop("callbacks", ()))
    try:
        fit(shared, x, y, callbacks=[*others, callback], **fit_options)
    finally:
        if callback._installed:
            callback.release()
    return shared


def clusters(model: Any) -> ClusterReport:
    """Counts the distinct values in every kernel of a model.

    Args:
        model: A built Keras model.

    Returns:
        A `ClusterReport`; `print` shows a line per layer.

    Example:
        >>> import tfbig
        >>> tfbig.clusters(tfbig.models.mlp((4,), 3, hidden=(8,))).layers[0].weights
        32
    """
    targets, skipped = find_targets(model)
    return _measured(targets, skipped)


def _measured(targets: list[Target], skipped: Mapping[str, str]) -> ClusterReport:
    layers = []
    for target in targets:
        values = np.asarray(target.kernel.numpy(), np.float32)
        _, counts = np.unique(values, return_counts=True)
        shares = counts / values.size
        layers.append(
            LayerClusters(
                name=target.name,
                weights=values.size,
                distinct=len(counts),
                distinct_per_channel=most_distinct(values.reshape(-1, values.shape[-1]).T),
                zeros=int((values == 0).sum()),
                bits=float(-(shares * np.log2(shares)).sum()) + 0.0,  # a single value has 0.0 bits, not -0.0
            )
        )
    return ClusterReport(tuple(layers), dict(skipped))


def _check_init(init: Any) -> str:
    """Returns our name of the initializer; TFMOT's enumeration is a string of its own name."""
    for name, theirs in INITIALIZERS.items():
        if init in (name, theirs, f"CentroidInitialization.{theirs}"):
            return name
    raise unknown_choice("init", init, INITIALIZERS)
