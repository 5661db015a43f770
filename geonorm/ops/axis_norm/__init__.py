"""Normalization of dense tensors over chosen axes."""
