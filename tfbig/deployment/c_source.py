"""A LiteRT file as C source, to compile into the program of a microcontroller."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfbig.deployment.arena import arena_bytes
from tfbig.deployment.contents import Contents, Tensor, read_contents
from tfbig.deployment.metadata import read_labels
from tfbig.deployment.micro_ops import registrations, unsupported
from tfbig.errors import ExportFailed
from tfbig.files import check_output, written_whole

_BYTES_A_LINE = 16


def write_c_source(
    content: bytes, path: Path, contents: Contents | None = None, labels: Sequence[str] | None = None
) -> tuple[Path, Path]:
    """Writes a LiteRT file as a C header and source, which C++ compiles too, for TensorFlow Lite Micro.

    Beside the bytes they hold what a program needs to know of them: the operators to register, an estimate of the
    arena, and shape, dtype, scale and zero point of every input and output.

    Args:
        content: The file's bytes.
        path: Where to write, without an ending: `<path>.h` and `<path>.c`. Its name becomes that of the array,
            `<name>_model`.
        contents: What the file holds, if that has been read already.
        labels: Names of the classes; None for those in the file's metadata.

    Returns:
        The paths of header and source, which replace files of these names. Both are written, or none.

    Raises:
        UnreadableFile: The bytes are no LiteRT file.
        ExportFailed: TensorFlow Lite Micro has no kernel for something in it; all of it is named.
        OutputNotWritable: The files cannot be written.
    """
    contents = contents or read_contents(content)
    check_c_source(contents)
    labels = read_labels(contents) if labels is None else labels
    path = Path(path)
    header = check_output(path.with_name(f"{path.name}.h"), suffix=".h", overwrite=True)
    source = check_output(path.with_name(f"{path.name}.c"), suffix=".c", overwrite=True)
    name = _identifier(path.name)
    with written_whole(header) as staged_header, written_whole(source) as staged_source:
        staged_header.write_text(_header(name, content, contents, labels), encoding="utf-8")
        staged_source.write_text(_source(name, header.name, content, labels), encoding="utf-8")
    return header, source


def check_c_source(contents: Contents) -> None:
    """Raises `ExportFailed` if TensorFlow Lite Micro has no kernel for something in the file."""
    refused = unsupported(contents)
    if refused:
        raise ExportFailed(
            f"TensorFlow Lite Micro cannot run this file: {'; '.join(refused)}. Change the layers these come from, or "
            "export without C source."
        )


def _header(name: str, content: bytes, contents: Contents, labels: Sequence[str] | None) -> str:
    methods = registrations(contents)
    big = name.upper()
    lines = [
        f"/* The model {name}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}.",
        " * Written by tfbig; export again instead of editing. With TensorFlow Lite Micro:",
        " *",
        f" *   static tflite::MicroMutableOpResolver<{big}_OPS> resolver;",
        f" *   {big}_REGISTER(resolver);",
        f" *   alignas(16) static uint8_t arena[{big}_ARENA_BYTES];",
        " *   static tflite::MicroInterpreter interpreter(",
        f" *       tflite::GetModel({name}_model), resolver, arena, sizeof arena);",
        " *   interpreter.AllocateTensors();",
        " */",
        f"#ifndef {big}_MODEL_H_",
        f"#define {big}_MODEL_H_",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"extern const unsigned char {name}_model[];",
        f"extern const unsigned int {name}_model_len;",
        *(_label_declarations(name) if labels else ()),
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "/* An estimate; interpreter.arena_used_bytes() says what was needed. */",
        f"#define {big}_ARENA_BYTES {arena_bytes(contents)}",
        "",
        f"#define {big}_OPS {len(methods)}",
        f"#define {big}_REGISTER(resolver) \\",
        "  do { \\",
        *(f"    (resolver).{method}(); \\" for method in methods),
        "  } while (0)",
        "",
        *_edges(big, contents),
        f"#endif /* {big}_MODEL_H_ */",
    ]
    return "\n".join(lines) + "\n"


def _label_declarations(name: str) -> tuple[str, str]:
    return f"extern const char* const {name}_labels[];", f"extern const unsigned int {name}_labels_len;"


def _edges(big: str, contents: Contents) -> Iterator[str]:
    """What a program must know of the inputs and outputs, in the interpreter's order."""
    graph = contents.graphs[0]  # the only one that the runtime is asked to run
    named = contents.default if contents.default.graph == 0 else None
    for kind, indices, names in (
        ("INPUT", graph.inputs, named.inputs if named else {}),
        ("OUTPUT", graph.outputs, named.outputs if named else {}),
    ):
        called = {index: name for name, index in names.items()}
        for position, index in enumerate(indices):
            tensor = graph.tensors[index]
            yield from _edge(f"{big}_{kind}_{position}", called.get(index, tensor.name), tensor)


def _edge(macro: str, name: str, tensor: Tensor) -> Iterator[str]:
    shape = ", ".join(map(str, tensor.shape))
    size = 1
    for length in tensor.shape:
        size *= length
    yield f"/* {_commented(name)}: {tensor.dtype}, shape {{{shape}}}. */"
    yield f"#define {macro}_SIZE {size}"
    if tensor.scales == 1:
        yield "/* real value = scale * (stored value - zero point) */"
        yield f"#define {macro}_SCALE {tensor.scale!r}f"
        yield f"#define {macro}_ZERO_POINT ({tensor.zero_point})"
    yield ""


def _source(name: str, header: str, content: bytes, labels: Sequence[str] | None) -> str:
    hexadecimal = [f"0x{value:02x}," for value in range(256)]
    lines = [
        f'#include "{header}"',
        "",
        "#if defined(_MSC_VER)",
        "#define ALIGNED_16 __declspec(align(16))",
        "#else",
        "#define ALIGNED_16 __attribute__((aligned(16)))",
        "#endif",
        "",
        "/* LiteRT computes on the weights where they lie, so they must not begin anywhere. */",
        f"ALIGNED_16 const unsigned char {name}_model[] = {{",
        *(
            "".join(hexadecimal[value] for value in content[start : start + _BYTES_A_LINE])
            for start in range(0, len(content), _BYTES_A_LINE)
        ),
        "};",
        f"const unsigned int {name}_model_len = {len(content)};",
    ]
    if labels:
        lines += [
            "",
            f"const char* const {name}_labels[] = {{",
            *(f"  {_quoted(label)}," for label in labels),
            "};",
            f"const unsigned int {name}_labels_len = {len(labels)};",
        ]
    return "\n".join(lines) + "\n"


def _identifier(name: str) -> str:
    """A file's name as a name in C."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return plain if plain[:1].isalpha() else f"m_{plain}"


def _commented(name: str) -> str:
    """A name that cannot end the comment it stands in."""
    return ascii(name).replace("*/", "* /").replace("??", "? ?").replace("\\", "/")


def _quoted(text: str) -> str:
    """A string literal of the text in UTF-8; octal escapes have an end, hexadecimal ones go on."""
    plain = set(range(32, 127)) - set(b'"\\?')
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03o}" for b in text.encode()) + '"'
