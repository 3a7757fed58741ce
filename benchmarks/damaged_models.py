"""Damaged, renamed and hostile model files: `load_model` must raise for each, and never take its caller down.

    python benchmarks/damaged_models.py

Makes more than 130 broken `.keras` and `.h5` files from two good ones and loads each in one calling process. Prints
what became of them, and writes benchmarks/results/damaged_models.json. Exits with 1 if the caller died or hung, if
anything but UnreadableFile came out, if a `.keras` file gave other values than it was saved with, or if a cut,
renamed, garbage or hostile file loaded.

An `.h5` file has no checksum. A bit that flips among its weights cannot be told from another weight: such files load
with a wrong value, and are counted apart. So are flips of bytes that mean nothing (padding, dates), where the model is
the same.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import json
import random
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
MUST_RAISE = ("cut", "renamed", "garbage", "hostile")
CUTS, FLIPS, OVERWRITES = 20, 40, 10


def write_good_files(folder):
    import tf_keras

    import tfbig

    tfbig.save_model(tfbig.models.cnn((8, 8, 1), 3, filters=(4,)), folder / "good.keras")
    layers = [
        tf_keras.layers.Input((60,)),
        tf_keras.layers.Dense(128, activation="relu"),
        tf_keras.layers.Dense(3),
    ]
    model = tf_keras.Sequential(layers)
    model.save(folder / "good.h5")
    code = tf_keras.Sequential([tf_keras.layers.Input((6,)), tf_keras.layers.Lambda(lambda x: x + 1)])
    code.save(folder / "hostile_lambda.h5")
    code.save(folder / "hostile_lambda.keras")


def damage(good, folder, chance):
    """Broken copies of one file; the name says what was done."""
    content, ending = good.read_bytes(), good.suffix
    for i in range(CUTS):
        length = int(len(content) * i / CUTS) if i else 0
        (folder / f"cut_{i}{ending}").write_bytes(content[:length])
    (folder / f"cut_last_byte{ending}").write_bytes(content[:-1])
    for i in range(FLIPS):
        changed = bytearray(content)
        changed[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        (folder / f"flip_{i}{ending}").write_bytes(changed)
    for i in range(OVERWRITES):
        changed = bytearray(content)
        start = chance.randrange(len(content) - 64)
        changed[start : start + 64] = chance.randbytes(64)
        (folder / f"overwrite_{i}{ending}").write_bytes(changed)
    pretenders = {
        "png": b"\x89PNG\r\n\x1a\n" + chance.randbytes(2000),
        "tflite": b"\x1c\0\0\0TFL3" + chance.randbytes(2000),
        "txt": b"This is a text about models.\n" * 50,
    }
    for name, text in pretenders.items():
        (folder / f"renamed_{name}{ending}").write_bytes(text)
    magic = {".h5": b"\x89HDF\r\n\x1a\n", ".keras": b"PK\x03\x04"}[ending]
    for i, start in enumerate((b"", magic, magic + b"\0" * 8)):
        (folder / f"garbage_{i}{ending}").write_bytes(start + chance.randbytes(5000))


def write_hostile(folder, good):
    """Files that ask for what a model has no need of."""
    import h5py

    with zipfile.ZipFile(good / "good.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}

    def archive_of(name, changed, also=()):
        with zipfile.ZipFile(folder / f"hostile_{name}.keras", "w", zipfile.ZIP_DEFLATED) as archive:
            for part, content in {**parts, **changed}.items():
                archive.writestr(part, content)
            for part, content in also:
                archive.writestr(part, content)

    config = json.loads(parts["config.json"])
    archive_of("path", {"../../outside.txt": b"x"})
    archive_of("absolute_path", {"/tmp/outside.txt": b"x"})
    archive_of("bomb", {"assets/zeros": bytes(2**28)})
    archive_of("json", {"config.json": b"[" * 100_000})
    archive_of("other_class", {"config.json": json.dumps({**config, "module": "os", "class_name": "system"})})
    archive_of(
        "huge_layer", {"config.json": json.dumps(config).replace('"units": 3', '"units": 10000000000000')}
    )
    broken = bytearray(parts["model.weights.h5"])
    broken[100:400] = random.Random(3).randbytes(300)
    archive_of("weights_with_right_checksum", {"model.weights.h5": bytes(broken)})

    with h5py.File(good / "good.h5") as file:
        text = file.attrs["model_config"]

    def hdf5_of(name, old="", new="", edit=lambda file: None):
        target = folder / f"hostile_{name}.h5"
        target.write_bytes((good / "good.h5").read_bytes())
        with h5py.File(target, "r+") as file:
            assert old in text
            del file.attrs["model_config"]
            file.attrs["model_config"] = text.replace(old, new, 1) if old else text
            edit(file)

    def elsewhere(file):
        file.create_dataset("more", (4,), "f4", external=[("/etc/hostname", 0, 16)])

    hdf5_of("function", '"relu"', '"eval"')
    hdf5_of("class", '"class_name": "Dense"', '"class_name": "Thief"')
    hdf5_of("module", '"class_name": "Dense"', '"module": "os.path", "class_name": "Dense"')
    hdf5_of("external", edit=elsewhere)
    hdf5_of(
        "claims_a_terabyte", edit=lambda file: file.create_dataset("more", (2**38,), "f4", chunks=(2**20,))
    )
    hdf5_of("other_units", '"units": 128', '"units": 129')


def load_all(folder, output):
    """The caller: loads every file, and writes a line for each as soon as it is done."""
    import numpy as np

    import tfbig
    from tfbig.errors import UnreadableFile

    good = {suffix: tfbig.load_model(folder / "good" / f"good{suffix}") for suffix in (".keras", ".h5")}
    with output.open("w") as lines:
        for path in sorted((folder / "bad").iterdir()):
            words = ""
            try:
                model = tfbig.load_model(path, timeout=120)
                expected = good[path.suffix]
                same = model.to_json() == expected.to_json() and all(
                    np.array_equal(a, b, equal_nan=True)
                    for a, b in zip(model.get_weights(), expected.get_weights(), strict=True)
                )
                outcome = "the same model" if same else "another model"
            except UnreadableFile as error:
                outcome, words = "UnreadableFile", str(error)[:300]
            except Exception as error:
                outcome, words = type(error).__name__, str(error)[:300]
            lines.write(json.dumps({"file": path.name, "outcome": outcome, "words": words}) + "\n")
            lines.flush()


def judge(row):
    """Whether what became of a file is right."""
    done, ending = row["file"].split("_")[0], Path(row["file"]).suffix
    if row["outcome"] == "UnreadableFile":
        return True
    may_load = done not in MUST_RAISE
    return may_load and (
        row["outcome"] == "the same model" or (row["outcome"] == "another model" and ending == ".h5")
    )


def main():
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        good, bad = folder / "good", folder / "bad"
        good.mkdir()
        bad.mkdir()
        write_good_files(good)
        for name in ("good.keras", "good.h5"):
            damage(good / name, bad, chance)
        write_hostile(bad, good)
        for path in good.glob("hostile_*"):
            path.rename(bad / path.name)
        count = len(list(bad.iterdir()))
        output = folder / "outcomes.jsonl"
        caller = subprocess.run(
            [sys.executable, __file__, "--caller", str(folder), str(output)], timeout=3600
        )
        rows = [json.loads(line) for line in output.read_text().splitlines()]
    for row in rows:
        row["right"] = judge(row)
    table = Counter((Path(row["file"]).suffix, row["file"].split("_")[0], row["outcome"]) for row in rows)
    for (ending, done, outcome), number in sorted(table.items()):
        print(f"{ending:8}{done:12}{outcome:20}{number:4}")
    wrong = [row for row in rows if not row["right"]]
    for row in wrong:
        print(f"WRONG: {row['file']}: {row['outcome']} {row['words']}")
    silent = sum(row["outcome"] == "another model" and row["right"] for row in rows)
    print(
        f"{count} files; the calling process {'lives' if caller.returncode == 0 else 'DIED'}; {len(wrong)} wrong"
    )
    print(f"{silent} .h5 files loaded with a changed value, unnoticed: the format has no checksum")
    RESULTS.mkdir(exist_ok=True)
    summary = {f"{e} {d}: {o}": n for (e, d, o), n in sorted(table.items())}
    (RESULTS / "damaged_models.json").write_text(json.dumps({"files": count, **summary}, indent=2))
    return 0 if caller.returncode == 0 and len(rows) == count and not wrong else 1


if __name__ == "__main__":
    if "--caller" in sys.argv:
        sys.exit(load_all(Path(sys.argv[2]), Path(sys.argv[3])))
    sys.exit(main())
