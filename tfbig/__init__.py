"""tfbig takes a Keras 3 model from data to a proven LiteRT file.

Importing it loads neither TensorFlow nor Keras; the first use of a name does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Where each public name lives; a name that is a module stands for itself.
_HOMES = {
    "Cluster": "tfbig.compression.clusters",
    "CrossValidation": "tfbig.evaluation.cross_validation",
    "KerasClassifier": "tfbig.evaluation.estimators",
    "KerasRegressor": "tfbig.evaluation.estimators",
    "LiteModel": "tfbig.deployment.lite_model",
    "Prune": "tfbig.compression.magnitude",
    "Run": "tfbig.training.run",
    "Scores": "tfbig.evaluation.evaluate",
    "clean": "tfbig.data.cleaning",
    "cluster": "tfbig.compression.clusters",
    "clusters": "tfbig.compression.clusters",
    "cross_validate": "tfbig.evaluation.cross_validation",
    "errors": "",
    "evaluate": "tfbig.evaluation.evaluate",
    "export": "tfbig.deployment.export",
    "fit": "tfbig.training.fit",
    "load_dataset": "tfbig.data.datasets",
    "load_model": "tfbig.deployment.saved",
    "models": "",
    "normalizer": "tfbig.data.normalization",
    "prune": "tfbig.compression.magnitude",
    "save_model": "tfbig.deployment.saved",
    "sparsity": "tfbig.compression.sparsity",
    "split": "tfbig.data.splitting",
}

if TYPE_CHECKING:
    from tfbig import errors, models
    from tfbig.compression.clusters import Cluster, cluster, clusters
    from tfbig.compression.magnitude import Prune, prune
    from tfbig.compression.sparsity import sparsity
    from tfbig.data.cleaning import clean
    from tfbig.data.datasets import load_dataset
    from tfbig.data.normalization import normalizer
    from tfbig.data.splitting import split
    from tfbig.deployment.export import export
    from tfbig.deployment.lite_model import LiteModel
    from tfbig.deployment.saved import load_model, save_model
    from tfbig.evaluation.cross_validation import CrossValidation, cross_validate
    from tfbig.evaluation.estimators import KerasClassifier, KerasRegressor
    from tfbig.evaluation.evaluate import Scores, evaluate
    from tfbig.training.fit import fit
    from tfbig.training.run import Run

__all__ = [
    "Cluster",
    "CrossValidation",
    "KerasClassifier",
    "KerasRegressor",
    "LiteModel",
    "Prune",
    "Run",
    "Scores",
    "clean",
    "cluster",
    "clusters",
    "cross_validate",
    "errors",
    "evaluate",
    "export",
    "fit",
    "load_dataset",
    "load_model",
    "models",
    "normalizer",
    "prune",
    "save_model",
    "sparsity",
    "split",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tfbig' has no attribute {name!r}")
    home = _HOMES[name]
    value = getattr(import_module(home), name) if home else import_module(f"tfbig.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
