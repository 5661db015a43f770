"""Whether Open3D by itself can draw on this machine, which has nothing to do with our code."""

import subprocess
import sys
from functools import cache

import pytest

_TRY = """if True:
    import open3d, os
    open3d.visualization.rendering.OffscreenRenderer(8, 8)
    os._exit(0)  # its own clean-up can crash
    """


@cache
def renders() -> bool:
    """Return whether Open3D can make a picture without a screen here."""
    done = subprocess.run([sys.executable, "-c", _TRY], capture_output=True, check=False)
    return done.returncode == 0


def skip_without_rendering() -> None:
    """Skip a test where there is nothing to draw with."""
    if not renders():
        pytest.skip("Open3D cannot render here: it needs EGL, which Debian has in libegl1")
