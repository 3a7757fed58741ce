"""Pictures of plain numbers. Each function returns a matplotlib figure; none touches pyplot's global state."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

BLUE, ORANGE, GREY = "#2563a8", "#d97706", "#8a8f98"


def new_figure(width: float = 6.4, height: float = 4.0, columns: int = 1) -> tuple[Any, Any]:
    """Returns a figure of that size in inches, and its axes: one, or an array of so many in a row."""
    # Figure rather than pyplot: no window, no backend chosen for the user, nothing to close.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns)
    for ax in figure.axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def saved(figure: Any, path: str | os.PathLike[str] | None) -> Any:
    """Writes the figure to `path`, if there is one, and returns it."""
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def learning_curves(history: Mapping[str, Sequence[float]]) -> Any:
    """Draws loss, and the first metric if there is one, by epoch, for training and validation rows.

    Args:
        history: Metric name to its value after each epoch; "val_" names the validation rows.
    """
    metrics = [name for name in history if not name.startswith("val_") and name != "loss"]
    names = [name for name in ("loss", *metrics[:1]) if name in history]
    figure, _ = new_figure(4.6 * len(names), 3.6, columns=len(names))
    for ax, name in zip(figure.axes, names, strict=True):
        epochs = range(1, len(history[name]) + 1)
        ax.plot(epochs, history[name], color=BLUE, label="training")
        if f"val_{name}" in history:
            ax.plot(epochs, history[f"val_{name}"], color=ORANGE, label="validation")
        ax.set(xlabel="epoch", ylabel=name)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.25)
        ax.legend(frameon=False)
    return figure


def confusion_matrix(targets: Any, predicted: Any, classes: Sequence[str] = ()) -> Any:
    """Draws how often each true class (row) was named as each class (column).

    Args:
        targets: True labels, shape (rows,).
        predicted: Predicted labels, shape (rows,).
        classes: Names of the classes; numbers by default.
    """
    import numpy as np
    from sklearn.metrics import confusion_matrix

    if getattr(targets, "ndim", 1) > 1:  # several labels a row: one 2 × 2 over all of them
        targets, predicted, classes = targets.ravel(), predicted.ravel(), ("0", "1")
    count = max(int(targets.max()), int(predicted.max())) + 1
    names = list(classes) if len(classes) >= count else [str(i) for i in range(count)]
    matrix = confusion_matrix(targets, predicted, labels=list(range(len(names))))
    side = 2.6 + 0.42 * len(names)
    figure, ax = new_figure(side + 0.8, side)
    # Drawn here: scikit-learn's display would load pyplot.
    ax.imshow(matrix, cmap="Blues")
    for row, column in np.ndindex(*matrix.shape):
        color = "white" if matrix[row, column] > matrix.max() / 2 else "black"
        ax.text(column, row, str(matrix[row, column]), ha="center", va="center", color=color)
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(names)), names)
    if max(map(len, names)) > 3:
        ax.tick_params(axis="x", labelrotation=45)
    ax.set(xlabel="predicted", ylabel="true")
    return figure


def predicted_against_true(targets: Any, predicted: Any) -> Any:
    """Draws predicted against true values, and the residuals' distribution.

    Args:
        targets: True values, shape (rows, outputs).
        predicted: Predicted values, shape (rows, outputs).
    """
    figure, (left, right) = new_figure(9.2, 3.8, columns=2)
    targets, predicted = targets.ravel(), predicted.ravel()
    low, high = min(targets.min(), predicted.min()), max(targets.max(), predicted.max())
    left.plot([low, high], [low, high], color=GREY, linewidth=1)
    left.scatter(targets, predicted, s=14, color=BLUE, alpha=0.7, linewidths=0)
    left.set(xlabel="true", ylabel="predicted")
    right.hist(predicted - targets, bins="auto", color=BLUE, alpha=0.85)
    right.axvline(0, color=GREY, linewidth=1)
    right.set(xlabel="residual (predicted - true)", ylabel="rows")
    return figure


def folds(metric: str, values: Sequence[float]) -> Any:
    """Draws one metric for each fold, with the mean and one standard deviation either side."""
    import numpy as np

    figure, ax = new_figure(5.6, 3.4)
    numbers = range(1, len(values) + 1)
    mean, std = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    ax.axhspan(mean - std, mean + std, color=BLUE, alpha=0.12, linewidth=0)
    ax.axhline(mean, color=BLUE, linewidth=1.2, label=f"mean {mean:.4f} ± {std:.4f}")
    ax.scatter(numbers, values, color=BLUE, zorder=3)
    ax.set(xlabel="fold", ylabel=metric, xticks=list(numbers))
    ax.legend(frameon=False)
    return figure


def size_against_score(points: Sequence[tuple[str, int, float]], metric: str) -> Any:
    """Draws files as points: size against score.

    Args:
        points: (name, bytes, score) of each file.
        metric: What the score is.
    """
    figure, ax = new_figure(6.4, 3.8)
    for name, size, value in points:
        ax.scatter(size / 1000, value, s=60, color=BLUE, zorder=3)
        ax.annotate(name, (size / 1000, value), textcoords="offset points", xytext=(8, 6))
    ax.set(xlabel="gzipped file size (kB)", ylabel=metric)
    ax.margins(y=0.3)
    ax.set_xlim(0, 1.35 * max(size for _, size, _ in points) / 1000)  # room for the names
    ax.grid(alpha=0.25)
    return figure


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """Draws a table of texts: the first column to the left, the others to the right.

    Args:
        titles: Of the columns.
        rows: The cells, row by row.
    """
    lines = [list(titles), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    figure, ax = new_figure(0.5 + 0.085 * sum(width + 3 for width in widths), 0.4 + 0.27 * len(lines))
    ax.axis("off")
    drawn = ax.table(
        cellText=lines,
        colWidths=[(width + 3) / sum(w + 3 for w in widths) for width in widths],
        cellLoc="right",
        bbox=[0, 0, 1, 1],
        edges="horizontal",
    )
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(9)
    for (row, column), cell in drawn.get_celld().items():
        cell.set_edgecolor(GREY)
        cell.set_linewidth(0.5)
        cell.get_text().set_fontweight("bold" if row == 0 else "normal")
        if column == 0:
            cell.get_text().set_horizontalalignment("left")
    return figure
