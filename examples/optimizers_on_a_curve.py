"""Gradient descent, momentum and Adam walk down the same narrow valley, side by side in one picture.

The valley's walls are 60 times as steep as its floor. They limit the step of plain gradient descent, which bounces
between them and creeps along the floor; momentum adds up the steps that agree and swings past the minimum; Adam divides
each weight's step by how large its gradients have been, so that walls and floor count alike.
"""

from pathlib import Path

import keras
import numpy as np

from tfbig.plots import BLUE, ORANGE, new_figure, saved

START, STEPS = (-10.0, 1.3), 60
GREEN = "#2f8f5b"
OPTIMIZERS = {
    "gradient descent": (keras.optimizers.SGD(0.0315), ORANGE),
    "momentum": (keras.optimizers.SGD(0.04, momentum=0.8), GREEN),
    "Adam": (keras.optimizers.Adam(0.5, beta_1=0.8), BLUE),
}


def height(x, y):
    return 0.5 * x**2 + 30 * y**2


def slope(x, y):
    return np.array([x, 60 * y], "float32")


def walk(optimizer):
    """Every place that the optimizer comes by, shape (STEPS + 1, 2)."""
    place = keras.Variable(START)
    path = [place.numpy()]
    for _ in range(STEPS):
        optimizer.apply([keras.ops.convert_to_tensor(slope(*path[-1]))], [place])
        path.append(place.numpy())
    return np.array(path)


figure, panels = new_figure(15, 4.2, columns=4)
*valleys, heights = panels
x, y = np.meshgrid(np.linspace(-11.5, 4, 200), np.linspace(-1.9, 1.9, 200))
for ax, (name, (optimizer, color)) in zip(valleys, OPTIMIZERS.items(), strict=True):
    path = walk(optimizer)
    fallen = height(*path.T)
    low = np.flatnonzero(fallen < 0.1)
    print(
        f"{name:17}height {fallen[-1]:8.1e} after {STEPS} steps, below 0.1 from step {low[0] if low.size else '-'}"
    )
    # Level lines at squares, as the walls of a bowl have them at even steps.
    ax.contourf(x, y, height(x, y), levels=np.linspace(0, 15, 16) ** 2, cmap="Blues", alpha=0.45)
    ax.plot(*path.T, color=color, linewidth=1.4, marker="o", markersize=3.2)
    ax.plot(*START, "o", color="black", markersize=6)
    ax.plot(0, 0, "*", color="black", markersize=13)
    ax.set(title=name, xlabel="first weight", xticks=[-10, -5, 0], yticks=[-1, 0, 1])
    heights.semilogy(fallen, color=color, linewidth=1.8, label=name)
valleys[0].set_ylabel("second weight")
valleys[0].annotate("start", START, textcoords="offset points", xytext=(-4, 9))
valleys[0].annotate("minimum", (0, 0), textcoords="offset points", xytext=(2, 12))
heights.set(title="height after each step", xlabel="step")
heights.grid(alpha=0.25)
heights.legend(frameon=False)
Path("savedmodels").mkdir(exist_ok=True)
saved(figure, "savedmodels/optimizers.png")
print("picture: savedmodels/optimizers.png")
