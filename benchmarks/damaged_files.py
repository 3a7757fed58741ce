"""Damaged LiteRT files: whatever is done to a file, loading it is an exception and never the end of the process.

    python benchmarks/damaged_files.py

Makes damaged copies of an int8 and a float file (cut short, bits flipped, parts overwritten, swapped or repeated,
numbers of the tables changed, renamed, garbage) and loads and runs each twice, in a process that is watched: with the
report that `tfbig.export` left beside the file, where each must be refused, and without any, where each must be refused
or run. For comparison the bare LiteRT interpreter does the same. Prints counts and writes
benchmarks/results/damaged_files.json. Exits with 1 if tfbig's process died or a reported file was not refused, and also
if no file ended the bare interpreter, since then nothing was shown.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import hashlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

RESULTS = Path(__file__).parent / "results"

# Loads and runs the files named on standard input, and says of each how it went. It may die at any of them.
TFBIG = """
import sys
import numpy as np
import tfbig
for path in sys.stdin.read().splitlines():
    print(path, end=" ", flush=True)
    try:
        model = tfbig.LiteModel(path)
        model.predict(np.zeros((4, 8, 8, 1), "float32"))
        print("ran", flush=True)
    except tfbig.errors.TfbigError as error:
        print(type(error).__name__, flush=True)
"""
BARE = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
for path in sys.stdin.read().splitlines():
    print(path, end=" ", flush=True)
    try:
        model = Interpreter(path)
        model.allocate_tensors()
        for detail in model.get_input_details():
            model.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
        model.invoke()
        print("ran", flush=True)
    except (ValueError, RuntimeError) as error:
        print(type(error).__name__, flush=True)
"""


def originals(folder):
    """Two small files with their reports."""
    import tfbig

    data = tfbig.load_dataset("digits")
    model = tfbig.fit(
        lambda: tfbig.models.cnn((8, 8, 1), 10, filters=(8, 16)), data.x, data.y, epochs=1, seed=0, verbose=0
    ).model
    for name, options in (("float", {}), ("int8", {"quantize": "int8"})):
        tfbig.export(model, folder / f"{name}.tflite", calibration=data.x, **options)
    return [folder / "float.tflite", folder / "int8.tflite"]


def damaged(content, generator):
    """Yields damaged copies of a file with what was done to each."""
    size = len(content)
    for kept in (0, 1, 7, 8, 20, 100, size // 8, size // 4, size // 2, size * 3 // 4, size - 100, size - 1):
        yield "cut short", content[:kept]
    for _ in range(24):  # anywhere; most are weights, which run and mean something else
        yield "one bit flipped", flipped(content, generator, 1, size)
    for count in (1, 1, 1, 1, 1, 1, 1, 1, 4, 4, 16, 16):  # where the file says what is where
        yield "bits flipped in the tables", flipped(content, generator, count, size, tables=True)
    for count in (16, 64, 256, 1024):
        yield "many bits flipped", flipped(content, generator, count, size)
    for value in (0x00, 0xFF, 0x7F):
        for length in (4, 64, size // 10):
            start = int(generator.integers(8, size - length))
            yield "a part overwritten", content[:start] + bytes([value]) * length + content[start + length :]
    for _ in range(4):
        a, b = sorted(generator.integers(8, size, 2))
        yield "a part missing", content[:a] + content[b:]
        yield "parts swapped", content[:8] + content[b:] + content[a:b] + content[8:a]
        yield "a part repeated", content[:b] + content[a:]
    for _ in range(60):
        try:
            yield "a number changed", renumbered(content, generator)
        except (TypeError, ValueError, OverflowError, flatbuffers.builder.BuilderNotFinishedError):
            continue  # the tables have no room for that value
    yield from (("an operator's input left out", copy) for copy in left_out(content))
    yield from (("a scale of zero", copy) for copy in unscaled(content))
    for other in (b"", b"\n", b"PK\x03\x04" + content, content[:4] + b"GGUF" + content[8:], content[::-1]):
        yield "another kind of file", other
    for length in (8, 64, 1000, size):
        yield "garbage", generator.bytes(length)
        yield "garbage with the right mark", content[:8] + generator.bytes(length)


def renumbered(content, generator):
    """A well-formed file in which one number of its tables is another: only running it shows the damage."""

    def change(model):
        places = list(numbers([model.subgraphs, model.operatorCodes, model.signatureDefs]))
        owner, key = places[generator.integers(len(places))]
        value = [0, -1, 1, 2, 100, 2**31 - 1, -(2**31)][generator.integers(7)]
        if isinstance(owner, np.ndarray):
            owner[key] = np.array(value).astype(owner.dtype)
        else:
            setattr(owner, key, type(getattr(owner, key))(value))

    return edited(content, change)


def left_out(content):
    """Yields copies in which one operator lacks one input; LiteRT follows where it led, which is nowhere."""
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0)).subgraphs[0]
    for op, given in enumerate(graph.operators):
        for place in range(len(given.inputs)):

            def change(model, op=op, place=place):
                inputs = model.subgraphs[0].operators[op].inputs.copy()
                inputs[place] = -1
                model.subgraphs[0].operators[op].inputs = inputs

            yield edited(content, change)


def unscaled(content):
    """Yields copies in which one tensor's quantization has a scale of 0."""
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0)).subgraphs[0]
    for place, tensor in enumerate(graph.tensors):
        if tensor.quantization is not None and tensor.quantization.scale is not None:

            def change(model, place=place):
                quantization = model.subgraphs[0].tensors[place].quantization
                quantization.scale = quantization.scale * 0

            yield edited(content, change)


def edited(content, change):
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    change(model)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def numbers(table):
    """Yields every place of a number in the tables: an object and a field's name, or an array and an index."""
    if isinstance(table, list):
        for item in table:
            yield from numbers(item)
        return
    for field, value in vars(table).items():
        if isinstance(value, bool | int):
            yield table, field
        elif isinstance(value, np.ndarray):
            if not value.flags.writeable:
                setattr(table, field, value.copy())
            yield from ((getattr(table, field), index) for index in range(len(value)))
        elif hasattr(value, "__dict__") or isinstance(value, list):
            yield from numbers(value)


def flipped(content, generator, count, size, tables=False):
    changed = bytearray(content)
    for place in generator.integers(0, size, count):
        # The tables lie at the end and hold the few small numbers of the file; the rest are weights.
        where = size - 1 - int(place) % (size // 3) if tables else int(place)
        changed[where] ^= 1 << int(generator.integers(0, 8))
    return bytes(changed)


def outcomes(program, paths):
    """What came of each file; a process that died is started again behind the file that ended it."""
    left, found = [str(path) for path in paths], {}
    while left:
        child = subprocess.run(
            [sys.executable, "-c", program], input="\n".join(left), capture_output=True, text=True
        )
        answers = dict(line.split(" ") for line in child.stdout.splitlines() if line.count(" ") == 1)
        found.update({path: answer for path, answer in answers.items() if answer})
        if child.returncode:
            dead = left[len([path for path in left if answers.get(path)])]
            found[dead] = "died"
        left = [path for path in left if path not in found]
    return found


def main():
    generator, kinds = np.random.default_rng(0), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for original in originals(folder):
            content = original.read_bytes()
            report = json.loads(original.with_suffix(".report.json").read_text())
            report["sha256"] = hashlib.sha256(content).hexdigest()
            for number, (kind, bytes_) in enumerate(damaged(content, generator)):
                if bytes_ == content:
                    continue
                for beside in ("reported", "alone"):
                    path = folder / f"{original.stem}-{number}-{beside}.tflite"
                    path.write_bytes(bytes_)
                    kinds[str(path)] = kind
                    if beside == "reported":
                        path.with_name(path.stem + ".report.json").write_text(json.dumps(report))
        alone = [path for path in kinds if path.endswith("-alone.tflite")]
        found = {
            "reported": outcomes(TFBIG, [path for path in kinds if path not in alone]),
            "alone": outcomes(TFBIG, alone),
            "bare interpreter": outcomes(BARE, alone),
        }
    results = {
        who: {
            "files": len(answers),
            "refused": sum(answer not in ("ran", "died") for answer in answers.values()),
            "ran": sum(answer == "ran" for answer in answers.values()),
            "process died": sum(answer == "died" for answer in answers.values()),
            "ran, by kind": dict(Counter(kinds[path] for path, answer in answers.items() if answer == "ran")),
            "died, by kind": dict(
                Counter(kinds[path] for path, answer in answers.items() if answer == "died")
            ),
        }
        for who, answers in found.items()
    }
    for who, counts in results.items():
        print(
            f"{who:17}"
            + "  ".join(f"{key} {value}" for key, value in counts.items() if isinstance(value, int))
        )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "damaged_files.json").write_text(json.dumps(results, indent=2) + "\n")
    missed = (
        results["reported"]["ran"] + results["reported"]["process died"] + results["alone"]["process died"]
    )
    return 1 if missed or not results["bare interpreter"]["process died"] else 0


if __name__ == "__main__":
    sys.exit(main())
