import numpy as np
import pytest
from PIL import Image

import tfbig
from tfbig.backend import keras
from tfbig.data.image_files import stream_images
from tfbig.data.stream_order import orders_in
from tfbig.data.streams import row_errors_named
from tfbig.errors import InvalidData, InvalidOption, UnreadableFile


@pytest.fixture
def folder(tmp_path):
    """Twelve grey PNG images of 6 by 4 pixels in each of three classes; image i of class c has the value 50 c + i."""
    for label, name in enumerate(("ant", "bee", "cow")):
        (tmp_path / name / "deep").mkdir(parents=True)
        for i in range(12):
            place = tmp_path / name / ("deep" if i % 2 else ".") / f"{i:02}.png"
            Image.fromarray(np.full((6, 4), 50 * label + i, np.uint8)).save(place)
    return tmp_path


def values(stream):
    """Value and label of every image, in the order they come."""
    return [
        (int(v), int(t)) for x, y in stream for v, t in zip(x.numpy()[:, 0, 0, 0], y.numpy(), strict=True)
    ]


def test_every_image_comes_once_with_its_folder_as_label(folder):
    stream = stream_images(folder, size=(3, 2), channels=1, batch_size=8)
    expected = [(50 * label + i, label) for label in range(3) for i in range(12)]
    assert sorted(values(stream)) == expected
    x, y = next(iter(stream))
    assert (x.shape, x.dtype, y.dtype, len(stream)) == ((8, 3, 2, 1), "float32", "int64", 5)


def test_unshuffled_images_are_those_of_keras(folder):
    theirs = keras.utils.image_dataset_from_directory(
        folder, image_size=(3, 2), batch_size=8, shuffle=False, verbose=False
    )
    ours = stream_images(folder, size=(3, 2), batch_size=8, shuffle=False)
    by_value = lambda stream: sorted(values(stream))  # noqa: E731
    assert by_value(ours) == by_value(theirs)
    assert [label for _, label in values(ours)] == [0] * 12 + [1] * 12 + [2] * 12


def test_classes_are_taken_in_the_order_given(folder):
    stream = stream_images(folder, size=(3, 2), classes=["cow", "ant"], shuffle=False)
    assert {(value // 50, label) for value, label in values(stream)} == {(2, 0), (0, 1)}


def test_the_order_follows_from_seed_and_epoch(folder):
    first, again, other = (stream_images(folder, size=(3, 2), seed=seed) for seed in (1, 1, 2))
    epochs = [values(first), values(first)]
    assert epochs == [values(again), values(again)]
    assert epochs[0] != epochs[1]
    assert values(other) != epochs[0]
    assert len(orders_in(first)) == 1


def test_the_formats_of_photographs_are_read(tmp_path):
    (tmp_path / "a").mkdir()
    for ending in ("jpg", "JPEG", "bmp", "gif", "png"):
        Image.fromarray(np.full((8, 8), 77, np.uint8)).save(tmp_path / "a" / f"x.{ending}")
    # JPEG rounds.
    assert all(abs(value - 77) <= 1 for value, _ in values(stream_images(tmp_path, size=(8, 8))))
    assert len(values(stream_images(tmp_path, size=(8, 8)))) == 5


def test_a_model_trains_on_it(folder):
    model = keras.Sequential([keras.Input((3, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    stream = stream_images(folder, size=(3, 2), channels=1)
    run = tfbig.fit(model, stream, loss=loss, epochs=2, seed=0, verbose=0)
    assert len(run.history["loss"]) == 2


def test_a_file_that_is_no_image_is_named(folder):
    (folder / "ant" / "bad.png").write_text("<html>not found</html>")
    with pytest.raises(InvalidData, match="Cannot read .*bad.png: expected a JPEG, PNG"), row_errors_named():
        values(stream_images(folder, size=(3, 2)))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": 3}, InvalidOption, "size must be height and width"),
        ({"size": (0, 2)}, InvalidOption, "each of size must be a whole number of at least 1"),
        ({"channels": 4}, InvalidOption, "channels must be 3 for colors or 1 for grey; got 4"),
        ({"batch_size": 0}, InvalidOption, "batch_size"),
        ({"classes": ["dog"]}, UnreadableFile, "dog' holds no image .*The folders there: ant, bee, cow"),
    ],
)
def test_what_cannot_be_read_is_refused_before_work_starts(folder, options, error, message):
    with pytest.raises(error, match=message):
        stream_images(folder, **{"size": (3, 2), **options})


def test_folders_without_classes_are_refused(tmp_path):
    with pytest.raises(UnreadableFile, match="must hold a folder of images for each class"):
        stream_images(tmp_path, size=(3, 2))
    with pytest.raises(UnreadableFile, match="There is no folder"):
        stream_images(tmp_path / "gone", size=(3, 2))
