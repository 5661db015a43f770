"""A scan in a window of Open3D, where there is a screen."""

import os
import sys

import numpy as np

from geonorm.looking.scans import Panel


def show(panel: Panel, color: str | None = None) -> None:
    """Show a scan in a window, until it is closed.

    Args:
        panel: the scan.
        color: name of one of its columns, which colours it; the first by default.

    Raises:
        ValueError: there is no screen, or the window cannot be opened.
    """
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        raise ValueError(
            "--window needs a screen, and there is none: neither DISPLAY nor WAYLAND_DISPLAY is "
            "set. Leave it out, and open the page that is written in any browser"
        )
    import open3d as o3d

    column = next(each for each in panel.columns if color in (None, each.name))
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(panel.points.astype(np.float64)))
    cloud.colors = o3d.utility.Vector3dVector(column.painted() / 255.0)
    window = o3d.visualization.Visualizer()
    if not window.create_window(panel.title):
        raise ValueError(
            "Open3D cannot open a window on this screen; leave --window out, and open the page "
            "that is written in any browser"
        )
    window.add_geometry(cloud)
    window.get_render_option().background_color = np.zeros(3)
    window.run()
    window.destroy_window()
