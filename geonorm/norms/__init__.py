"""The normalization modules."""
