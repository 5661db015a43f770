#!/usr/bin/env python
"""Build and install MinkowskiEngine for the Python that runs this; see --help."""

from geonorm.minkowski.install import run

if __name__ == "__main__":
    run()
