import pytest

from tfbig.deployment.arena import activation_bytes, arena_bytes
from tfbig.deployment.contents import Contents, Graph, Operation, Signature, Tensor, read_contents
from tfbig.errors import UnreadableFile


def values(count, dtype="int8", **more):
    return Tensor("t", dtype, False, (1, count), **more)


def contents(tensors, operations, inputs=(0,), outputs=None, others=()):
    """A file whose main graph holds these; the last tensor is its output."""
    main = Graph(tuple(tensors), tuple(operations), tuple(inputs), outputs or (len(tensors) - 1,))
    return Contents((main, *others), {"": Signature(0, {}, {})}, {})


def test_a_chain_takes_its_largest_pair():
    # 160 and 320 live together, then 320 and 64; 64 goes where 160 was.
    chain = [Operation("A", (0,), (1,)), Operation("B", (1,), (2,))]
    assert activation_bytes(contents([values(160), values(320), values(64)], chain)) == 480


def test_a_shortcut_lives_until_it_is_added():
    shortcut = [Operation("A", (0,), (1,)), Operation("B", (1,), (2,)), Operation("ADD", (0, 2), (3,))]
    assert activation_bytes(contents([values(64)] * 4, shortcut)) == 3 * 64


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("float32", 400), ("int16", 208), ("int8", 112), ("bool", 112), ("int4", 64), ("int64", 800)],
)
def test_sizes_go_by_dtype_and_are_rounded_up_to_16(dtype, size):
    assert activation_bytes(contents([values(100, dtype)], [])) == size


def test_constants_take_nothing_and_inputs_left_out_are_none():
    weights = Tensor("w", "int8", True, (1000,), 1000)
    graph = contents([values(16), weights, values(16)], [Operation("A", (0, 1, -1), (2,))])
    assert activation_bytes(graph) == 32


def test_states_lie_there_for_ever():
    op = [Operation("A", (0, 1), (2,))]
    without = contents([values(16), values(160), values(16)], op, inputs=(0, 1))
    state = contents([values(16), values(160, variable=True), values(16)], op)
    assert activation_bytes(state) == 32
    assert arena_bytes(state) == arena_bytes(without)


def test_a_body_adds_to_what_its_caller_holds():
    body = Graph((values(160), values(160)), (Operation("A", (0,), (1,)),), (0,), (1,))
    caller = [Operation("WHILE", (0,), (1,), bodies=(1,))]
    assert activation_bytes(contents([values(64), values(64)], caller, others=(body,))) == 2 * 64 + 2 * 160


def test_a_body_that_runs_itself_is_refused():
    with pytest.raises(UnreadableFile, match="graph 0 runs itself"):
        arena_bytes(contents([values(1), values(1)], [Operation("WHILE", (0,), (1,), bodies=(0,))]))


def test_a_real_file_takes_what_the_runtime_reports(digits_lite):
    # tflite-micro 0.dev20261023182759 (PyPI) on x86-64: head 1,280 bytes, tail 3,360.
    found = read_contents(digits_lite.path.read_bytes())
    assert activation_bytes(found) == 1280
    assert 1280 + 3360 <= arena_bytes(found) <= 1.5 * (1280 + 3360)
