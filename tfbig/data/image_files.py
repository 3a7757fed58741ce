"""Folders of images as a stream of batches."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfbig.backend import tf
from tfbig.data.stream_order import StreamOrder, keeping, shuffled_by
from tfbig.data.streams import fails_where
from tfbig.errors import InvalidOption, UnreadableFile
from tfbig.options import checked, positive_int

_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
# How the files that TensorFlow decodes begin: JPEG, PNG, GIF, BMP.
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")


@checked()
def stream_images(
    folder: str | os.PathLike[str],
    *,
    size: tuple[int, int],
    channels: int = 3,
    classes: Sequence[str] | None = None,
    batch_size: int = 32,
    shuffle: bool = True,
    seed: int | None = None,
) -> "tf.data.Dataset":
    """Returns the images of a folder as a stream of batches; its folders are the classes.

    Images are read and decoded a few batches ahead, several at once, and brought to one size. All names of files are
    shuffled, so that no buffer has to hold images.

    Args:
        folder: Holds a folder for each class, with JPEG, PNG, BMP or GIF files (of these the first picture) in it or
            in folders below.
        size: Height and width to bring images to, without keeping their proportions.
        channels: 3 for colors, 1 for grey.
        classes: Names of the folders in the order of their labels; None takes all there are, in sorted order.
        batch_size: Images of a batch; the last one of an epoch may hold fewer.
        shuffle: Whether each epoch has another order; validation data needs none.
        seed: Makes the order the same in each run. Without one, `tfbig.fit` lends its own.

    Returns:
        A `tf.data.Dataset` of (x, y) of known length: x is float32 of shape (batch, height, width, channels) from 0 to
        255, y int64 of shape (batch,).

    Raises:
        UnreadableFile: There is no such folder, or a class without images.
        InvalidOption: A size makes no sense.
        InvalidData: From `tfbig.fit`, when it comes to a file that is no image: the message names it.

    Example:
        >>> import tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("cat", "dog"):
        ...     (folder / name).mkdir()
        ...     image = tf.io.encode_png(tf.zeros((4, 6, 3), tf.uint8)).numpy()
        ...     _ = (folder / name / "1.png").write_bytes(image)
        >>> [(x.shape.as_list(), y.numpy().tolist()) for x, y in stream_images(folder, size=(2, 3), shuffle=False)]
        [([2, 2, 3, 3], [0, 1])]
    """
    batch_size = positive_int("batch_size", batch_size)
    if channels not in (1, 3):
        raise InvalidOption(f"channels must be 3 for colors or 1 for grey; got {channels!r}.")
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise InvalidOption(f"size must be height and width, such as (224, 224); got {size!r}.")
    height, width = (positive_int("each of size", side) for side in size)
    names, files, labels = _listed(Path(folder), classes)
    contents = {"size": [height, width], "channels": channels, "classes": names, "batch_size": batch_size}
    order = StreamOrder(seed, files, {**contents, "shuffle": bool(shuffle)})

    def in_order() -> Any:
        return tf.data.Dataset.from_tensor_slices((files, tf.constant(labels, tf.int64)))

    def drawn_order(drawn: Any) -> Any:
        return in_order().shuffle(len(files), seed=drawn, reshuffle_each_iteration=False)

    def decoded(path: Any, label: Any) -> tuple[Any, Any]:
        content = tf.io.read_file(path)
        image = tf.reduce_any([tf.strings.substr(content, 0, len(begin)) == begin for begin in _BEGINNINGS])
        message = tf.strings.join(
            [path, ": expected a JPEG, PNG, BMP or GIF image; its content is of none of them"]
        )
        with tf.control_dependencies([fails_where([tf.logical_not(image)], [message])]):
            content = tf.identity(content)
        pixels = tf.io.decode_image(content, channels=channels, expand_animations=False)
        pixels.set_shape((None, None, channels))
        return tf.ensure_shape(tf.image.resize(pixels, (height, width)), (height, width, channels)), label

    stream = shuffled_by(order, drawn_order) if shuffle else keeping(order, in_order())
    stream = stream.map(decoded, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).batch(batch_size)
    stream = stream.apply(tf.data.experimental.assert_cardinality(-(-len(files) // batch_size)))
    return stream.prefetch(tf.data.AUTOTUNE)


def _listed(folder: Path, classes: Sequence[str] | None) -> tuple[list[str], list[str], list[int]]:
    """Names of the classes; files, and the label of each."""
    if not folder.is_dir():
        raise UnreadableFile(f"There is no folder {str(folder)!r}.")
    found = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    names = found if classes is None else list(classes)
    if not names:
        raise UnreadableFile(
            f"{str(folder)!r} must hold a folder of images for each class; it holds no folder."
        )
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        images = sorted(str(p) for p in (folder / name).rglob("*") if p.suffix.lower() in _ENDINGS)
        if not images:
            raise UnreadableFile(
                f"{str(folder / name)!r} holds no image ({', '.join(_ENDINGS)}). The folders there: "
                f"{', '.join(found) or 'none'}."
            )
        files += images
        labels += [label] * len(images)
    return names, files, labels
