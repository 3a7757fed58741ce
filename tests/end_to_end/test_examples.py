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
    "prune_in_your_own_fit.py": r"conv2d .* 75\.00% .*\n(.*\n)*all .* 75\.00%\s*\naccuracy 0\.9",
    "compress_in_your_own_loop.py": (
        r"dense_1 .* 80\.00%(.*\n)+dense +8 values, +80\.\d% zeros.*\ndense_1 +8 values, +80\.0% zeros"
        r".*\n.*\naccuracy 0\.9"
    ),
    "cross_validate_what_you_ship.py": r"10 folds .*\naccuracy\s+0\.9(.*\n)*as int8 files: accuracy 0\.9",
    "grid_search.py": r"best parameters \{.*'hidden': .*\}\naccuracy 0\.9\d\d in cross-validation, (0\.9|1\.0)",
    "predict_without_tensorflow.py": r"classes \[0 2\]\nTensorFlow loaded: False",
    "linear_regression.py": r"gradient descent +40 +40 +(\S+) +(\S+)%\n.*\n.* falling rate +10 +200 +(\S+) +(\S+)%",
    "optimizers_on_a_curve.py": r"gradient descent +height +(\S+).*\nmomentum +height +(\S+).*\nAdam +height +(\S+)",
    "random_regressor.py": (
        r"possible +R² (\S+)\n5 folds +R² (\S+) .*\ntrained +R² (\S+)\npruned.* R² (\S+)\nrounded.* R² (\S+)\n"
        r"float32 file +R² (\S+), (\S+) bytes.*\npruned int8 file +R² (\S+), (\S+) bytes"
    ),
    "raw_table.py": (
        r"2400 of 2400 rows kept; \d+ missing values kept in income, calls; constant, left out: currency\n"
        r"accuracy +(\S+) (.*\n)*.*P\(left\) = (\S+)"
    ),
    "small_language_model.py": r"held out +(\S+)\nentropy .* (\S+)\nverbs .* (\S+)%\n(.*\n)+written by the model: ",
    "several_devices.py": r"1 device +accuracy (\S+)\n.*3 replicas +accuracy (\S+)\n.*any weight +(\S+)",
    "legacy_model.py": r"at most (\S+)\naccuracy  as it came (\S+)  trained on (\S+)  as an int8 file (\S+)",
    "rare_classes.py": (
        r"cross-entropy +\S+ +\S+ +\S+ +(\S+) .*\nbalanced weights +\S+ +\S+ +\S+ +(\S+) .*\nfocal .*\n"
        r"focal, alpha 0\.9 +\S+ +\S+ +\S+ +(\S+) "
    ),
}


def numbers(groups):
    """The numbers among what an expression found, in their order."""
    return [float(text.replace(",", "")) for text in groups if re.fullmatch(r"[\d.,]+(e[+-]\d+)?", text)]


# What the numbers that were found must show, where a pattern cannot say it.
def both_reach_least_squares(loss, above, other_loss, other_above):
    assert above < 0.01
    assert 0 < other_above < 0.5
    assert loss < other_loss


def momentum_and_adam_are_far_ahead(descent, momentum, adam):
    assert max(momentum, adam) < descent / 1000


def nothing_is_lost_on_the_way(best, folds, trained, pruned, rounded, file, size, int8, int8_size):
    assert best > min(trained, pruned, rounded) > 0.75
    assert file == trained
    # The rounding of 8 bits, and the spread of a training, in R².
    assert abs(int8 - rounded) < 0.005
    assert int8 > trained - 0.02
    assert best > folds > 0.7
    assert int8_size < 0.6 * size


def it_tells_who_leaves(accuracy, newcomer):
    assert accuracy > 0.78  # that of the rule which made the table is about 0.85
    assert newcomer > 0.9


def it_is_near_the_entropy_and_agrees(cross_entropy, entropy, agreeing):
    assert entropy < cross_entropy < 1.1 * entropy
    assert agreeing > 95


def devices_agree(one, three, difference):
    assert one == three > 0.85
    assert difference < 1e-5  # float32, summed in another order


def it_is_the_old_model_and_learns_on(difference, before, after, int8):
    assert difference < 1e-5
    assert 0.5 < before < after
    assert int8 > after - 0.02


def rare_rows_are_found_more_often(plain, weighted, focal):
    assert min(weighted, focal) > plain


CHECKS = {
    "linear_regression.py": both_reach_least_squares,
    "optimizers_on_a_curve.py": momentum_and_adam_are_far_ahead,
    "random_regressor.py": nothing_is_lost_on_the_way,
    "raw_table.py": it_tells_who_leaves,
    "small_language_model.py": it_is_near_the_entropy_and_agrees,
    "several_devices.py": devices_agree,
    "legacy_model.py": it_is_the_old_model_and_learns_on,
    "rare_classes.py": rare_rows_are_found_more_often,
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
    found = re.search(EXPECTED[name], result.stdout)
    assert found, result.stdout
    if name in CHECKS:
        CHECKS[name](*numbers(found.groups()))


def test_the_readmes_code_is_the_quickstart():
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    example = (ROOT / "examples" / "quickstart.py").read_text()
    assert block.strip() == example.split('"""', 2)[2].strip()
