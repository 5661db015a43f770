#!/usr/bin/env python
"""Build and install MinkowskiEngine for the Python that runs this; see --help."""

import sys

from geonorm.minkowski.install import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
