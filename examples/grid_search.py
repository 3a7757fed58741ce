"""scikit-learn searches a network's sizes, its training and its optimizer at once."""

from sklearn.model_selection import GridSearchCV

import tfbig

data = tfbig.load_dataset("wine")
x_train, x_test, y_train, y_test = tfbig.split(data.x, data.y, seed=0)


def build(x_train, outputs, hidden=(16,), dropout=0.0):
    """Its arguments are the estimator's parameters; the rows and `outputs` come from each fold's data."""
    normalizer = tfbig.normalizer(x_train)
    return tfbig.models.mlp((13,), outputs, hidden=hidden, dropout=dropout, normalizer=normalizer)


grid = {
    "hidden": [(8,), (32,)],
    "dropout": [0.0, 0.3],
    "optimizer__learning_rate": [0.001, 0.01],
}
classifier = tfbig.KerasClassifier(build, epochs=10, batch_size=16, optimizer="adam", seed=0)
search = GridSearchCV(classifier, grid, cv=3).fit(x_train, y_train)
print("best parameters", search.best_params_)
print(f"accuracy {search.best_score_:.3f} in cross-validation, {search.score(x_test, y_test):.3f} held out")
