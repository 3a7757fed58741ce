"""The demo on every data set: what it writes, what it prints, and how good the files are."""

import json
import re

import pytest

import tfbig
from tfbig.cli import main
from tfbig.demo import DemoReport, Progress, run_demo
from tfbig.errors import InvalidOption

FILES = {"model.keras", "model.tflite", "model_int8.tflite", "report.json", "report.html"}
# The least the int8 file must score on held-out rows after quick training: well below what it does score, well
# above what a broken step (unnormalized inputs, lost weights, one scale for all features) leaves.
FLOORS = {"digits": 0.9, "wine": 0.9, "breast_cancer": 0.9, "diabetes": 0.2}


@pytest.mark.parametrize("dataset", FLOORS)
def test_the_demo_writes_files_that_do_the_job(dataset, tmp_path):
    report, folder = run_demo(dataset, out=tmp_path, quick=True)
    assert folder == tmp_path / dataset
    assert {path.name for path in folder.iterdir()} >= FILES
    int8 = tfbig.LiteModel(folder / "model_int8.tflite")
    assert "FULLY_CONNECTED int8" in int8.ops
    metric = "r2" if dataset == "diabetes" else "accuracy"
    assert report.stages[-1].scores[metric] >= FLOORS[dataset]
    assert report.sparsity == pytest.approx(0.8, abs=0.002)  # rounding in the smallest kernels
    assert tfbig.sparsity(tfbig.load_model(folder / "model.keras")).overall == report.sparsity
    assert len(report.cross_validation[metric]) == 5
    assert DemoReport.from_json(folder / "report.json").to_dict() == report.to_dict()
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r"""(src|href)=(?!["']?data:)""", page)  # stands alone


class Log(Progress):
    def __init__(self):
        self.stages, self.steps = {}, 0

    def stage(self, text, total=0):
        self.stages[text] = total

    def step(self, logs=None):
        self.steps += 1


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A run with a seed of its own: what was told of its progress, and its report."""
    log = Log()
    report, _ = run_demo("wine", out=tmp_path_factory.mktemp("wine"), quick=True, seed=3, progress=log)
    return log, report


def test_the_command_prints_one_readable_table_and_the_same_seed_gives_the_same_scores(
    followed, tmp_path, capfd
):
    assert main(["demo", "--dataset", "wine", "--quick", "--out", str(tmp_path), "--seed", "3"]) == 0
    printed, notes = capfd.readouterr()
    assert re.search(
        r"pruned, int8 +│ +\d\.\d{4} │ +\d\.\d{4} │ +\d+\.\d kB │ +\d+\.\d kB │ +\d+\.\d µs", printed
    )
    assert max(len(line) for line in printed.splitlines()) <= 80
    assert "agrees with the pruned Keras model on" in printed
    assert json.loads((tmp_path / "wine" / "report.json").read_text())["seed"] == 3
    assert notes == ""
    first, second = followed[1], DemoReport.from_json(tmp_path / "wine" / "report.json")
    assert [stage.scores for stage in first.stages] == [stage.scores for stage in second.stages]
    assert first.cross_validation == second.cross_validation


def test_progress_is_told_of_every_stage_and_epoch(followed):
    log, _ = followed
    assert list(log.stages) == [
        "clean and split",
        "train",
        "cross-validate in 5 folds",
        "prune to 80%",
        "export and prove",
    ]
    assert log.steps == sum(log.stages.values())


def test_an_unknown_data_set_gets_did_you_mean(capsys):
    with pytest.raises(InvalidOption, match="Did you mean 'digits'"):
        run_demo("digit")
    assert main(["demo", "--dataset", "digit"]) == 2
    assert "Did you mean 'digits'" in capsys.readouterr().err
