"""The order of rows in a stream from files: a function of seed and epoch, as that of arrays is."""

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfbig.backend import tf
from tfbig.backend.distribution import pipeline_stages
from tfbig.options import positive_int

# Where a stage of a pipeline keeps the order of the stream that begins with it.
_KEPT_AS = "tfbig_order"


class StreamOrder:
    """Which epoch a stream is at, and from which seed each epoch's order follows.

    A stream counts its iterations, so that each has another order. A training says which epoch begins instead: one
    that is resumed in epoch 3 sees the rows of epoch 3, and workers of one training see the same batches.
    """

    def __init__(self, seed: int | None, files: Sequence[str], contents: Mapping[str, Any]):
        """Takes the seed, None for another in each process, and what the stream is made of, to be known by."""
        self._given = seed if seed is None else positive_int("seed", seed, minimum=0)
        self._drawn = random.SystemRandom().getrandbits(32)
        self._files, self._contents = files, contents
        self._iterations = 0
        self._told: tuple[int, int] | None = None

    def begin(self, epoch: int, seed: int) -> None:
        """Starts an epoch of a training, from 0, whose seed serves where the stream has none of its own."""
        self._told = (seed if self._given is None else self._given, epoch)

    def end(self) -> None:
        """Lets the stream count by itself again."""
        if self._told is not None:
            self._iterations, self._told = self._told[1] + 1, None

    def next_seed(self) -> np.int64:
        """Returns what the iteration that begins now shuffles by."""
        own = self._drawn if self._given is None else self._given
        seed, epoch = self._told or (own, self._iterations)
        self._iterations += self._told is None
        return np.int64(np.random.default_rng((seed, epoch)).integers(1, 1 << 62))

    def identity(self) -> dict[str, Any]:
        """Returns plain values that are equal for two streams of the same rows in the same order."""
        sizes = [[path, tf.io.gfile.stat(path).length] for path in self._files]
        digest = hashlib.sha256(json.dumps(sizes).encode()).hexdigest()[:16]
        total = sum(size for _, size in sizes)
        files = {"files": len(sizes), "first": self._files[0], "bytes": total, "digest": digest}
        return {**files, "seed": self._given, **self._contents}


def shuffled_by(order: StreamOrder, rows: Callable[[Any], Any]) -> Any:
    """Returns the dataset that `rows` makes of a seed, a scalar tensor, which each iteration draws from the order."""
    # A Python function, so that a training can say which epoch it is after the stream has been built.
    seeds = tf.data.Dataset.from_tensors(0).map(
        lambda _: tf.ensure_shape(tf.numpy_function(order.next_seed, [], tf.int64), ())
    )

    def seeded_rows(seed: Any) -> Any:
        if not tf.executing_eagerly():
            # Of this function's own graph: else the order would also follow from the seed that is set globally.
            tf.random.set_seed(1)
        return rows(seed)

    return keeping(order, seeds).flat_map(seeded_rows)


def keeping(order: StreamOrder, first_stage: Any) -> Any:
    """Returns the dataset, from which, and from all that is made of it, `orders_in` finds the order."""
    setattr(first_stage, _KEPT_AS, order)
    return first_stage


def orders_in(*streams: Any) -> list[StreamOrder]:
    """Returns the orders of all streams from files that these are made of; none of what is no `tf.data.Dataset`."""
    return [
        vars(stage)[_KEPT_AS]
        for stream in streams
        for stage in pipeline_stages(stream)
        if _KEPT_AS in vars(stage)
    ]
