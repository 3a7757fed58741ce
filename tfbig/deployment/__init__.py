"""Deployment: from a model to a proven LiteRT file, and back to predictions."""
