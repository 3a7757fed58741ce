"""Layers that quantized models carry: serializable, found again when such a model is loaded."""
