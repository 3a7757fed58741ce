"""Evaluation: scores by task and K-fold, for anything that predicts."""
