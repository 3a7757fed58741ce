"""The house rules: imports run downhill, private paths stay behind one door, the surface is what it says."""

import ast
from pathlib import Path

import pytest

import tfbig

ROOT = Path(tfbig.__file__).parent
# As in ARCHITECTURE.md. Rooms of one floor never import each other; those on the ground may.
FLOORS = {
    "errors": 0,
    "options": 0,
    "files": 0,
    "records": 0,
    "plots": 0,
    "backend": 0,
    "callbacks": 1,
    "data": 1,
    "layers": 1,
    "models": 1,
    "training": 2,
    "compression": 3,
    "evaluation": 3,
    "deployment": 3,
    "reporting": 5,
    "demo": 6,
    "workers": 6,
    "cli": 7,
}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem[:2] != "__")


def room(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


def imported(path):
    """Every module that a file imports, also inside functions and for type checking."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ids(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_imports_run_downhill_only(path):
    here = room(path)
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "tfbig" or len(parts) < 2 or parts[1] == here or parts[1] == "__version__":
            continue
        there = parts[1]
        assert there in FLOORS, f"{ids(path)} imports {name}, which stands on no floor"
        ground = FLOORS[here] == FLOORS[there] == 0
        assert FLOORS[there] < FLOORS[here] or ground, f"{ids(path)} (floor {FLOORS[here]}) imports {name}"


def test_the_ground_has_no_cycles():
    edges = {}
    for path in MODULES:
        if FLOORS[room(path)] == 0:
            edges.setdefault(room(path), set()).update(
                name.split(".")[1] for name in imported(path) if name.startswith("tfbig.")
            )
    order = ["errors", "options", "files", "records", "plots", "backend"]
    for i, here in enumerate(order):
        assert edges[here] - {here} <= set(order[:i]), f"{here} imports {edges[here]}"


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_private_paths_of_tensorflow_and_keras_stay_in_the_backend(path):
    private = [
        name
        for name in imported(path)
        if name.startswith(("keras.src", "tensorflow.python", "tensorflow_model"))
    ]
    assert not private or room(path) == "backend"


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_a_file_holds_one_idea(path):
    assert len(path.read_text().splitlines()) <= 350


def test_every_public_name_is_listed_resolved_and_typed():
    typed = {
        alias.name
        for node in ast.walk(ast.parse((ROOT / "__init__.py").read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert tfbig.__all__ == sorted(tfbig.__all__)
    assert set(tfbig.__all__) == set(tfbig._HOMES)
    for name in tfbig.__all__:
        assert getattr(tfbig, name) is not None
        assert name in typed


@pytest.mark.parametrize(
    "name", [name for name in tfbig.__all__ if name not in ("callbacks", "errors", "models")]
)
def test_every_public_name_has_a_docstring_with_an_example_or_attributes(name):
    value = getattr(tfbig, name)
    text = value.__doc__ + (value.__init__.__doc__ or "")
    assert "Example:" in text or "Attributes:" in text


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        tfbig.fitt  # noqa: B018
