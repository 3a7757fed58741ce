"""Every example runs as it stands, and so does the README's code; what they print is checked."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What each example must print: the part of its output that would be wrong if it did not do its job.
EXPECTED = {
    "quickstart.py": r"mode      int8\n(.*\n)+proof .*labels agree.*\nops .*CONV_2D int8.*\naccuracy 0\.9",
    "prune_in_your_own_fit.py": r"conv2d\S*\s+75\.00%.*\n.*\n.*\nall\s+75\.\d+%\naccuracy 0\.9",
    "cross_validate_what_you_ship.py": r"10 folds .*\naccuracy\s+0\.9(.*\n)*as int8 files: accuracy 0\.9",
    "grid_search.py": r"best parameters \{.*'hidden': .*\}\naccuracy 0\.9\d\d in cross-validation, (0\.9|1\.0)",
    "predict_without_tensorflow.py": r"classes \[0 2\]\nTensorFlow loaded: False",
}


def test_every_example_is_expected():
    assert set(EXPECTED) == {path.name for path in (ROOT / "examples").glob("*.py")}


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_runs_and_prints_its_result(name, tmp_path):
    script = ROOT / "examples" / name
    assert len(script.read_text().splitlines()) < 100
    result = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert re.search(EXPECTED[name], result.stdout), result.stdout


def test_the_readmes_code_is_the_quickstart():
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    example = (ROOT / "examples" / "quickstart.py").read_text()
    assert block.strip() == example.split('"""', 2)[2].strip()
