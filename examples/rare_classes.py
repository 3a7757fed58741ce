"""A rare class: the same network with plain cross-entropy, weighted classes and focal loss.

2% of the rows are of class 1. A model that never says 1 is right on 98% of the rows, so accuracy says nothing; recall,
F1 and balanced accuracy do. Weights make each row of the rare class count as many; focal loss makes rows that are
right already count less (Lin et al., 2017, https://arxiv.org/abs/1708.02002). Neither adds knowledge, as the average
precision shows, which needs no threshold: they move the balance between missing rare rows and false alarms.
"""

import keras
import numpy as np
from sklearn.datasets import make_classification

import tfbig

x, y = make_classification(
    8000, 20, n_informative=8, weights=[0.98], flip_y=0.005, class_sep=1.2, random_state=0
)
x_train, x_test, y_train, y_test = tfbig.split(x, y, seed=0)
# As many as there are of a class, so much less each of them weighs: scikit-learn's "balanced".
balanced = dict(enumerate(len(y_train) / (2 * np.bincount(y_train))))
rows = balanced[1] / balanced[0]
print(
    f"{y_train.mean():.1%} of the training rows are of class 1; balanced, each weighs as much as {rows:.0f} others\n"
)


def build(x_train):
    return tfbig.models.mlp((20,), 1, task="binary", hidden=(32,), normalizer=tfbig.normalizer(x_train))


# By name, a loss learns from the model whether it gets logits; here the loss has options, and so has to be told.
focal = keras.losses.BinaryFocalCrossentropy(from_logits=True, apply_class_balancing=True, alpha=0.9)
objectives = {
    "cross-entropy": {},
    "balanced weights": {"class_weight": balanced},
    "focal": {"loss": "binary_focal_crossentropy"},
    "focal, alpha 0.9": {"loss": focal},
}
shown = ["accuracy", "balanced_accuracy", "precision", "recall", "f1", "average_precision"]
print(
    f"{'':18}{'accuracy':>10}{'balanced':>10}{'precision':>11}{'recall':>9}{'f1':>8}{'average precision':>20}"
)
for name, objective in objectives.items():
    model = tfbig.fit(build, x_train, y_train, epochs=10, batch_size=64, seed=0, verbose=0, **objective).model
    scores = tfbig.evaluate(model, x_test, y_test)
    columns = zip(shown, (10, 10, 11, 9, 8, 20), strict=True)
    print(f"{name:18}" + "".join(f"{scores[metric]:{width}.3f}" for metric, width in columns))
