"""tfbig takes a Keras 3 model from data to a proven LiteRT file.

Importing it loads neither TensorFlow nor Keras; the first use of a name does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Where each public name lives; a name that is a module stands for itself.
_HOMES = {
    "Cluster": "tfbig.compression.clusters",
    "CrossValidation": "tfbig.evaluation.fold_results",
    "KerasClassifier": "tfbig.evaluation.estimators",
    "KerasRegressor": "tfbig.evaluation.estimators",
    "LiteModel": "tfbig.deployment.lite_model",
    "Prune": "tfbig.compression.magnitude",
    "Run": "tfbig.training.run",
    "Scores": "tfbig.evaluation.evaluate",
    "augmentation": "tfbig.data.augmentation",
    "callbacks": "",
    "clean": "tfbig.data.cleaning",
    "cluster": "tfbig.compression.clusters",
    "clusters": "tfbig.compression.clusters",
    "compare": "tfbig.evaluation.comparing",
    "cross_validate": "tfbig.evaluation.cross_validation",
    "encoder": "tfbig.data.encoding",
    "errors": "",
    "evaluate": "tfbig.evaluation.evaluate",
    "explain": "tfbig.evaluation.explain",
    "export": "tfbig.deployment.export",
    "fit": "tfbig.training.fit",
    "is_chief": "tfbig.training.strategies",
    "load_dataset": "tfbig.data.datasets",
    "load_model": "tfbig.deployment.saved",
    "models": "",
    "normalizer": "tfbig.data.normalization",
    "prune": "tfbig.compression.magnitude",
    "quantization": "tfbig.compression.quantization",
    "quantize_aware": "tfbig.compression.quantization",
    "save_model": "tfbig.deployment.saved",
    "shrink": "tfbig.compression.shrinking",
    "shrink_plan": "tfbig.compression.shrinking",
    "sparsity": "tfbig.compression.sparsity",
    "split": "tfbig.data.splitting",
    "strategy": "tfbig.training.strategies",
    "stream_csv": "tfbig.data.csv_files",
    "stream_images": "tfbig.data.image_files",
    "stream_parquet": "tfbig.data.parquet_files",
    "stream_tfrecord": "tfbig.data.tfrecords",
    "summary": "tfbig.compression.summary",
    "tokenizer": "tfbig.data.tokens",
    "windows": "tfbig.data.windows",
}

if TYPE_CHECKING:
    from tfbig import callbacks, errors, models
    from tfbig.compression.clusters import Cluster, cluster, clusters
    from tfbig.compression.magnitude import Prune, prune
    from tfbig.compression.quantization import quantization, quantize_aware
    from tfbig.compression.shrinking import shrink, shrink_plan
    from tfbig.compression.sparsity import sparsity
    from tfbig.compression.summary import summary
    from tfbig.data.augmentation import augmentation
    from tfbig.data.cleaning import clean
    from tfbig.data.csv_files import stream_csv
    from tfbig.data.datasets import load_dataset
    from tfbig.data.encoding import encoder
    from tfbig.data.image_files import stream_images
    from tfbig.data.normalization import normalizer
    from tfbig.data.parquet_files import stream_parquet
    from tfbig.data.splitting import split
    from tfbig.data.tfrecords import stream_tfrecord
    from tfbig.data.tokens import tokenizer
    from tfbig.data.windows import windows
    from tfbig.deployment.export import export
    from tfbig.deployment.lite_model import LiteModel
    from tfbig.deployment.saved import load_model, save_model
    from tfbig.evaluation.comparing import compare
    from tfbig.evaluation.cross_validation import cross_validate
    from tfbig.evaluation.estimators import KerasClassifier, KerasRegressor
    from tfbig.evaluation.evaluate import Scores, evaluate
    from tfbig.evaluation.explain import explain
    from tfbig.evaluation.fold_results import CrossValidation
    from tfbig.training.fit import fit
    from tfbig.training.run import Run
    from tfbig.training.strategies import is_chief, strategy

__all__ = [
    "Cluster",
    "CrossValidation",
    "KerasClassifier",
    "KerasRegressor",
    "LiteModel",
    "Prune",
    "Run",
    "Scores",
    "augmentation",
    "callbacks",
    "clean",
    "cluster",
    "clusters",
    "compare",
    "cross_validate",
    "encoder",
    "errors",
    "evaluate",
    "explain",
    "export",
    "fit",
    "is_chief",
    "load_dataset",
    "load_model",
    "models",
    "normalizer",
    "prune",
    "quantization",
    "quantize_aware",
    "save_model",
    "shrink",
    "shrink_plan",
    "sparsity",
    "split",
    "strategy",
    "stream_csv",
    "stream_images",
    "stream_parquet",
    "stream_tfrecord",
    "summary",
    "tokenizer",
    "windows",
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
