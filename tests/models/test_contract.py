"""One contract for every builder and variant; `contract.py` holds its table and how each promise is checked."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("contract.py")
_spec = importlib.util.spec_from_file_location("contract", SCRIPT)
contract = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(contract)


@pytest.fixture(scope="module", autouse=True)
def replicas(tmp_path_factory):
    """The process that trains on replicas, while the tests here work; begun first."""
    path = tmp_path_factory.mktemp("replicas") / "answers.json"
    child = subprocess.Popen([sys.executable, SCRIPT, path], stderr=subprocess.PIPE, text=True)
    yield child, path
    child.kill()
    child.communicate()


@pytest.fixture(scope="module")
def models():
    """A model of each row, made at its first use. Shared by tests: none may change it."""
    made = {}

    def model_of(name):
        if name not in made:
            made[name] = contract.build(name)
        return made[name]

    return model_of


def cells():
    for promise in contract.PROMISES:
        for name in contract.TABLE:
            gap = contract.GAPS.get((promise, name))
            marks = [] if gap is None else [pytest.mark.xfail(strict=True, reason=gap)]
            yield pytest.param(promise, name, marks=marks, id=f"{promise}-{name}")


@pytest.mark.parametrize(("promise", "name"), cells())
def test_the_promise_is_kept(models, promise, name, tmp_path):
    assert contract.PROMISES[promise](*models(name), tmp_path)


def test_the_gaps_are_those_of_rows_that_exist():
    assert {promise for promise, _ in contract.GAPS} <= {*contract.PROMISES, "replicas"}
    assert {name for _, name in contract.GAPS} <= set(contract.TABLE)


def test_every_row_trains_on_two_replicas_as_on_one_device(replicas):
    child, path = replicas
    _, errors = child.communicate(timeout=300)
    assert child.returncode == 0, errors[-2000:]
    answers = json.loads(path.read_text())
    assert list(answers) == list(contract.TABLE)
    for name, (moved, apart) in answers.items():
        assert contract.on_replicas(name, moved, apart)
