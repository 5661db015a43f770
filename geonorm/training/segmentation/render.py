"""Pictures of coloured points without a screen, by Open3D in a process of its own.

Open3D's renderer can end the process where there is no graphics driver; a run must outlive that.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

SIZE = (960, 640)
# Metres in the sensor's frame: from behind and above, along x, the way the sensor drives.
EYE, TARGET, UP = (-17.0, 0.0, 13.0), (7.0, 0.0, -2.0), (0.0, 0.0, 1.0)
FIELD_OF_VIEW = 62.0
TIMEOUT = 180


def render(scenes: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """Return pictures of each scene, one for each colouring of its points, all from one place.

    Args:
        scenes: points (x, y, z in metres, x ahead and z up, the sensor at the origin) and their
            colours (red, green, blue in [0, 255]) in each picture.

    Shape:
        - points: (N, 3); colours: (V, N, 3) uint8; each result: (V, height, width, 3) uint8.

    Raises:
        RuntimeError: Open3D cannot render on this machine; the message says what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        arrays, pictures = Path(folder) / "scenes.npz", Path(folder) / "pictures.npz"
        np.savez(arrays, *(array for scene in scenes for array in scene))
        command = [sys.executable, __file__, str(arrays), str(pictures)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"Open3D did not finish within {TIMEOUT} s") from error
        if done.returncode or not pictures.is_file():
            said = (done.stderr or done.stdout).strip().splitlines()[-3:]
            raise RuntimeError(
                f"Open3D ended with code {done.returncode}: {' | '.join(said) or 'no message'}"
            )
        return load_arrays(pictures)


def load_arrays(path: str | Path) -> list[np.ndarray]:
    """Return the arrays that np.savez wrote, in their order."""
    with np.load(path) as arrays:
        return [arrays[f"arr_{index}"] for index in range(len(arrays))]


def _render_here(scenes: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """Do the rendering in this process."""
    import open3d as o3d

    renderer = o3d.visualization.rendering.OffscreenRenderer(*SIZE)
    scene = renderer.scene
    scene.set_background([0.0, 0.0, 0.0, 1.0])
    scene.view.set_post_processing(False)  # tone mapping would change the classes' colours
    material = o3d.visualization.rendering.MaterialRecord()
    material.shader = "defaultUnlit"
    material.point_size = 3.0
    results = []
    for points, colors in scenes:
        cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.astype(np.float64)))
        pictures = []
        for color in colors:
            cloud.colors = o3d.utility.Vector3dVector(color / 255.0)
            scene.clear_geometry()
            scene.add_geometry("points", cloud, material)
            # Open3D takes the near and far plane from the points that are there now.
            renderer.setup_camera(FIELD_OF_VIEW, TARGET, EYE, UP)
            pictures.append(np.asarray(renderer.render_to_image()).copy())
        results.append(np.stack(pictures))
    return results


if __name__ == "__main__":
    flat = load_arrays(sys.argv[1])
    np.savez(sys.argv[2], *_render_here(list(zip(flat[::2], flat[1::2], strict=True))))
    # Open3D's own clean-up can crash after the work is done and saved.
    os._exit(0)
