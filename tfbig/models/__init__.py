"""Builders of plain Keras models."""

from tfbig.models.cnn import cnn
from tfbig.models.mlp import mlp

__all__ = ["cnn", "mlp"]
