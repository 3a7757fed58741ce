import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from tfbig.deployment.arena import arena_bytes
from tfbig.deployment.c_source import write_c_source
from tfbig.deployment.contents import Operation, read_contents
from tfbig.deployment.metadata import LABELS, with_metadata
from tfbig.errors import ExportFailed, OutputNotWritable, UnreadableFile

# Prints the bytes' count, a checksum that depends on their order, how they are aligned, and the labels.
PROGRAM = """
#include <stdio.h>
#include <stddef.h>
#include "digits.h"

int main(void) {
  unsigned int sum = 0, i;
  for (i = 0; i < digits_model_len; ++i) sum = sum * 31u + digits_model[i];
  printf("%u %u %u %u", digits_model_len, sum, (unsigned)((size_t)digits_model % 16), (unsigned)DIGITS_ARENA_BYTES);
  for (i = 0; i < digits_labels_len; ++i) printf(" %s", digits_labels[i]);
  return 0;
}
"""
LABEL_NAMES = ["zero", 'o"ne', "zw\u00f6lf", "??/", "back\\slash"]
COMPILERS = [
    pytest.param(
        command, id=" ".join(command), marks=pytest.mark.skipif(not shutil.which(command[0]), reason="none")
    )
    for command in (["cc", "-std=c99", "-pedantic"], ["c++", "-std=c++11", "-x", "c++"])
]


@pytest.fixture(scope="module")
def content(digits_lite):
    return digits_lite.path.read_bytes()


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_compiled_program_holds_the_file(content, tmp_path, compiler):
    header, source = write_c_source(content, tmp_path / "digits", labels=LABEL_NAMES)
    main = tmp_path / "main.c"
    main.write_text(PROGRAM)
    program = tmp_path / "program"
    command = [*compiler, "-Wall", "-Wextra", "-Werror", str(source), str(main), "-o", str(program)]
    compiled = subprocess.run(command, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
    printed = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    checksum = 0
    for value in content:
        checksum = (checksum * 31 + value) % 2**32
    arena = arena_bytes(read_contents(content))
    assert printed == " ".join(map(str, [len(content), checksum, 0, arena, *LABEL_NAMES]))


def test_the_header_says_what_a_program_needs(content, tmp_path):
    header, _ = write_c_source(content, tmp_path / "digits")
    text = header.read_text()
    contents = read_contents(content)
    assert re.search(r"#define DIGITS_OPS (\d+)", text)[1] == str(
        len({op.name for op in contents.operations})
    )
    assert "(resolver).AddConv2D(); \\\n" in text
    assert "'x': int8, shape {1, 8, 8, 1}" in text
    assert "#define DIGITS_INPUT_0_SCALE 0.0627451" in text  # sixteen shades of grey in 256 steps
    assert "#define DIGITS_INPUT_0_SIZE 64\n" in text
    assert "labels" not in text


def test_scales_of_integer_edges_are_given(content, tmp_path):
    contents = read_contents(content)
    graph = contents.graphs[0]
    tensors = list(graph.tensors)
    tensors[graph.inputs[0]] = replace(
        tensors[graph.inputs[0]], dtype="int8", scales=1, scale=0.0625, zero_point=-128
    )
    header, _ = write_c_source(
        content, tmp_path / "digits", replace(contents, graphs=(replace(graph, tensors=tuple(tensors)),))
    )
    assert (
        "#define DIGITS_INPUT_0_SCALE 0.0625f\n#define DIGITS_INPUT_0_ZERO_POINT (-128)\n"
        in header.read_text()
    )


def test_labels_in_the_file_are_written_too(content, tmp_path):
    labelled = with_metadata(content, {LABELS: b'["no", "yes"]'})
    _, source = write_c_source(labelled, tmp_path / "digits")
    assert '  "no",\n  "yes",\n' in source.read_text()


@pytest.mark.parametrize(
    ("name", "array"), [("my net-v1.5", "my_net_v1_5"), ("8bit", "m_8bit"), ("größe", "gr__e")]
)
def test_any_file_name_becomes_a_name_in_c(content, tmp_path, name, array):
    header, source = write_c_source(content, tmp_path / name)
    assert (header.name, source.name) == (f"{name}.h", f"{name}.c")
    assert f"const unsigned char {array}_model[]" in header.read_text()


def test_what_the_runtime_cannot_run_is_named_and_nothing_written(content, tmp_path):
    contents = read_contents(content)
    graph = contents.graphs[0]
    strange = replace(graph, operations=(*graph.operations, Operation("GELU", (0,), (0,))))
    with pytest.raises(ExportFailed, match="cannot run this file: GELU has no kernel"):
        write_c_source(content, tmp_path / "digits", replace(contents, graphs=(strange,)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("taken", ["digits.h", "digits.c"])
def test_both_files_appear_or_none(content, tmp_path, taken):
    (tmp_path / taken).mkdir()
    with pytest.raises(OutputNotWritable):
        write_c_source(content, tmp_path / "digits")
    assert [path.name for path in tmp_path.iterdir()] == [taken]


def test_bytes_that_are_no_model_are_refused(tmp_path):
    with pytest.raises(UnreadableFile):
        write_c_source(b"nothing", tmp_path / "digits")
