"""Data: checked, cleaned, split and normalized before a model sees it."""
