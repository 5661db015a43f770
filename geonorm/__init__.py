"""Instance normalization for sparse point clouds and video."""

from geonorm._version import __version__

__all__ = ["__version__"]
