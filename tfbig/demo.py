"""The whole road once: data, model, training, K-fold, pruning, LiteRT files, proof."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tfbig
from tfbig.backend import keras
from tfbig.data.datasets import Dataset
from tfbig.deployment.convert import warm_up
from tfbig.evaluation.evaluate import Scores
from tfbig.records import Record


@dataclass(frozen=True)
class Recipe:
    """How the demo treats one data set: its builder's sizes and how long it trains."""

    epochs: int
    prune_epochs: int
    batch_size: int
    options: Mapping[str, Any]


RECIPES = {
    "digits": Recipe(15, 25, 32, {"filters": (32, 64), "dense": (128,), "dropout": 0.2}),
    "wine": Recipe(40, 30, 16, {"hidden": (64, 32), "dropout": 0.2}),
    "breast_cancer": Recipe(30, 20, 16, {"hidden": (64, 32), "dropout": 0.2}),
    "diabetes": Recipe(40, 30, 16, {"hidden": (64, 32), "dropout": 0.2, "l2": 1e-3}),
}
SPARSITY = 0.8
FOLDS = 5


@dataclass(frozen=True)
class Stage(Record):
    """One file of the road, scored on the held-out rows.

    Attributes:
        name: Of the stage.
        scores: Metric name to value.
        bytes: Size of the LiteRT file.
        gzip_bytes: Its size after gzip.
        latency_us: Median time of one prediction, in microseconds.
    """

    name: str
    scores: Mapping[str, float]
    bytes: int
    gzip_bytes: int
    latency_us: float


@dataclass(frozen=True)
class DemoReport(Record):
    """What the demo did and measured; written as `report.json`.

    Attributes:
        dataset: Its name.
        task: "multiclass", "binary" or "regression".
        seed: Of everything.
        quick: Whether training was cut short.
        cleaning: What `clean` did.
        rows: Training and held-out rows.
        cross_validation: Metric name to its value on each fold.
        sparsity: Share of zeros over the pruned kernels, in [0, 1].
        agreement: Share of held-out rows for which the int8 file and the pruned Keras model name the same class;
            None for a regression.
        stages: The files, from trained to int8.
        versions: Library to version.
        seconds: Wall time of all of it.
    """

    dataset: str
    task: str
    seed: int
    quick: bool
    cleaning: str
    rows: Mapping[str, int]
    cross_validation: Mapping[str, tuple[float, ...]]
    sparsity: float
    agreement: float | None
    stages: tuple[Stage, ...]
    versions: Mapping[str, str]
    seconds: float


class Progress:
    """Where the demo tells how far it is; this one tells nobody. The command line draws it."""

    def stage(self, text: str, total: int = 0) -> None:
        """A stage begins, with so many steps to come."""

    def step(self, logs: Mapping[str, float] | None = None) -> None:
        """A step of the stage is done."""

    def done(self, result: str) -> None:
        """The stage is over, with this result."""


class _EpochSteps(keras.callbacks.Callback):
    """Tells a `Progress` of each epoch."""

    def __init__(self, progress: Progress):
        super().__init__()
        self.progress = progress

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.progress.step(logs)


def run_demo(
    dataset: str = "digits",
    *,
    out: str | Path = "savedmodels",
    seed: int = 0,
    quick: bool = False,
    progress: Progress | None = None,
) -> tuple[DemoReport, Path]:
    """Runs the whole road on a data set that ships with scikit-learn.

    Args:
        dataset: "digits", "wine", "breast_cancer" or "diabetes".
        out: Folder in which a folder of the data set's name is made.
        seed: Of the split, the weights and the training.
        quick: Train for a third of the epochs, and prune for half.
        progress: Told of each stage.

    Returns:
        The report, and the folder that holds `model.keras`, `model.tflite`, `model_int8.tflite`, `report.json`
        and `report.html`.

    Raises:
        InvalidOption: No such data set.
    """
    began = time.perf_counter()
    progress = progress or Progress()
    if dataset not in RECIPES:
        raise tfbig.errors.unknown_choice("dataset", dataset, RECIPES)
    recipe = RECIPES[dataset]
    if quick:
        recipe = dataclasses.replace(recipe, epochs=recipe.epochs // 3, prune_epochs=recipe.prune_epochs // 2)
    data = tfbig.load_dataset(dataset)
    build = builder(data, recipe)
    options: dict[str, Any] = {"batch_size": recipe.batch_size, "seed": seed, "verbose": 0}

    progress.stage("clean and split")
    x, y, cleaning = tfbig.clean(data.x, data.y)
    x_train, x_test, y_train, y_test = tfbig.split(x, y, test_size=0.2, seed=seed)
    x_fit, x_val, y_fit, y_val = tfbig.split(x_train, y_train, test_size=0.15, seed=seed)
    progress.done(f"{cleaning}; {len(x_test)} held out")

    progress.stage("train", recipe.epochs)
    follow = _EpochSteps(progress)
    run = tfbig.fit(
        build,
        x_fit,
        y_fit,
        epochs=recipe.epochs,
        validation_data=(x_val, y_val),
        callbacks=[follow],
        **options,
    )
    first, second = metric_names(data.task)
    dense_scores = tfbig.evaluate(run.model, x_test, y_test)
    progress.done(
        f"{first} {dense_scores[first]:.4f}, {second} {dense_scores[second]:.4f} on the held-out rows"
    )

    progress.stage(f"cross-validate in {FOLDS} folds", FOLDS * recipe.epochs)
    cv = tfbig.cross_validate(
        build, x_train, y_train, cv=FOLDS, epochs=recipe.epochs, callbacks=[follow], **options
    )
    progress.done(f"{first} {cv.mean[first]:.4f} ± {cv.std[first]:.4f}")

    progress.stage(f"prune to {SPARSITY:.0%}", recipe.prune_epochs)
    warm_up()  # the converter imports TensorFlow meanwhile, on another core
    thin = tfbig.prune(
        run.model,
        x_fit,
        y_fit,
        sparsity=SPARSITY,
        epochs=recipe.prune_epochs,
        validation_data=(x_val, y_val),
        callbacks=[follow],
        **options,
    )
    thinned = tfbig.sparsity(thin).overall
    thin_scores = tfbig.evaluate(thin, x_test, y_test)
    progress.done(f"{first} {thin_scores[first]:.4f} with {thinned:.2%} of the weights zero")

    folder = Path(out) / dataset
    progress.stage("export and prove", 3)
    files = _export(folder, run.model, thin, x_fit, progress)
    scores = {name: tfbig.evaluate(file, x_test, y_test) for name, file in files.items()}
    stages = tuple(_stage(name, file, scores[name]) for name, file in files.items())
    agreement = None if data.task == "regression" else _agreement(thin_scores, scores["pruned, int8"])
    progress.done("every file gives its model's answers in LiteRT")

    report = DemoReport(
        dataset=dataset,
        task=data.task,
        seed=seed,
        quick=quick,
        cleaning=str(cleaning),
        rows={"train": len(x_train), "held_out": len(x_test)},
        cross_validation=cv.scores,
        sparsity=thinned,
        agreement=agreement,
        stages=stages,
        versions=_versions(),
        seconds=time.perf_counter() - began,
    )
    report.to_json(folder / "report.json")
    _write_page(folder / "report.html", report, data, run, cv, files, scores["pruned, int8"])
    return report, folder


def builder(data: Dataset, recipe: Recipe) -> Callable[[Any, Any], Any]:
    """Returns the builder for a data set: a convolutional network for images, else a fully connected one.

    What it normalizes by is fitted on the rows it is given, so on each fold's own training rows.
    """

    def build(x_train: Any, y_train: Any) -> Any:
        options = {"task": data.task, "normalizer": tfbig.normalizer(x_train), **recipe.options}
        if data.task == "regression":
            options["denormalizer"] = tfbig.normalizer(y_train, invert=True)
        make = tfbig.models.cnn if data.x.ndim == 4 else tfbig.models.mlp
        return make(data.x.shape[1:], data.outputs, **options)

    return build


def metric_names(task: str) -> tuple[str, str]:
    """Returns the two metrics that the demo's table shows."""
    return ("r2", "mae") if task == "regression" else ("accuracy", "f1")


def table(report: DemoReport) -> tuple[list[str], list[list[str]]]:
    """Returns the closing table as text: its columns, and a row per stage."""
    first, second = metric_names(report.task)
    columns = ["stage", first, second, "file size", "gzip size", "latency"]
    rows = [
        [
            stage.name,
            f"{stage.scores[first]:.4f}",
            f"{stage.scores[second]:.4f}",
            f"{stage.bytes / 1000:.1f} kB",
            f"{stage.gzip_bytes / 1000:.1f} kB",
            f"{stage.latency_us:.1f} µs",
        ]
        for stage in report.stages
    ]
    return columns, rows


def _export(folder: Path, trained: Any, thin: Any, rows: np.ndarray, progress: Progress) -> dict[str, Any]:
    files = {}
    for name, model, file, mode in (
        ("trained, float32", trained, "dense.tflite", None),
        ("pruned, float32", thin, "model.tflite", None),
        ("pruned, int8", thin, "model_int8.tflite", "int8"),
    ):
        files[name] = tfbig.export(model, folder / file, quantize=mode, calibration=rows, overwrite=True)
        progress.step()
    tfbig.save_model(thin, folder / "model.keras", overwrite=True)
    return files


def _stage(name: str, file: Any, scores: Scores) -> Stage:
    return Stage(
        name=name,
        scores=dict(scores),
        bytes=file.report.bytes,
        gzip_bytes=file.report.gzip_bytes,
        latency_us=file.report.latency.median_us,
    )


def _agreement(a: Scores, b: Scores) -> float:
    return float(np.mean(a.predicted == b.predicted))


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {
        name: version(name) for name in ("tfbig", "tensorflow", "keras", "ai-edge-litert", "scikit-learn")
    }


def _write_page(
    path: Path, report: DemoReport, data: Dataset, run: Any, cv: Any, files: Mapping[str, Any], scores: Scores
) -> None:
    from tfbig import plots
    from tfbig.reporting.document import Page

    first, _ = metric_names(report.task)
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    agreement = (
        ""
        if report.agreement is None
        else (
            f" The int8 file agrees with the pruned Keras model on {report.agreement:.2%} of the held-out rows."
        )
    )
    page = Page(
        f"tfbig demo: {report.dataset}",
        lead=f"{report.cleaning}. {report.rows['train']} rows to train on, {report.rows['held_out']} held out. "
        f"{report.sparsity:.2%} of the weights are zero.{agreement}",
        footer=f"seed {report.seed}; {report.seconds:.0f} s; {versions}",
    )
    page.table("Held-out rows, scored by the files themselves", *table(report))
    page.picture("Training", plots.learning_curves(run.history), alt="loss and metric by epoch")
    page.picture(f"{FOLDS}-fold cross-validation", plots.folds(first, cv.scores[first]), alt="score by fold")
    if report.task == "regression":
        figure = plots.predicted_against_true(scores.targets, scores.predicted)
        page.picture("Residuals of the int8 file", figure, alt="predicted against true values")
    else:
        figure = plots.confusion_matrix(scores.targets, scores.predicted, data.classes)
        page.picture("Confusion matrix of the int8 file", figure, alt="true against predicted classes")
    points = [(stage.name, stage.gzip_bytes, stage.scores[first]) for stage in report.stages]
    page.picture("Size against " + first, plots.size_against_score(points, first), alt="size against score")
    for name, file in files.items():
        page.text(f"Evidence: {name} ({file.path.name})", str(file.report))
    page.write(path)
