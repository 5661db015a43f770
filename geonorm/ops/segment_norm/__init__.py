"""Normalization of rows over the instances they belong to."""
