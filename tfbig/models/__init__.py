"""Builders of plain Keras models, and the continuation of sequences by those that model language."""

from tfbig.models.cnn import cnn
from tfbig.models.generating import generate
from tfbig.models.mlp import mlp
from tfbig.models.rnn import rnn
from tfbig.models.transformer import transformer

__all__ = ["cnn", "generate", "mlp", "rnn", "transformer"]
