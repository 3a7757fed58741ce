"""Compression: smaller models that are still plain Keras models."""
