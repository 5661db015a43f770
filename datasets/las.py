"""Points of `.las` and `.laz` files, through laspy."""

from pathlib import Path

import numpy as np

from geonorm.datasets.point_fields import check_promise


def read_las_fields(path: Path) -> dict[str, np.ndarray]:
    """Read every dimension of the points, by its name in lower case.

    x, y and z are metres in float64, as the header's scales and offsets give them; the other
    dimensions have the file's types.

    Args:
        path: a `.las` or `.laz` file.

    Shape:
        - result: (N,) each

    Raises:
        ValueError: the file is truncated or damaged.

    Source: ASPRS, "LAS Specification 1.4", 2011, and Isenburg, "LASzip: lossless compression of
    LiDAR data", 2013.
    """
    import laspy  # of the extra `data`, for these files alone

    if path.suffix.lower() == ".laz":
        import lazrs  # noqa: F401  # without which laspy would say that it has no backend

    size = path.stat().st_size
    try:
        with laspy.open(path) as opened:  # its header alone: it may promise more than memory holds
            check_promise(opened.header.point_count, path, size)
            file = opened.read()
        names = [name for name in file.point_format.dimension_names if name not in ("X", "Y", "Z")]
        fields = {name.lower(): np.asarray(file[name]) for name in names}
        fields |= {axis: np.asarray(file[axis]) for axis in "xyz"}
    # laspy, numpy and lazrs, which is not written in Python, each say it in another way.
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read; it is truncated or damaged ({type(error).__name__}: {error})"
        ) from error
    if len(fields["x"]) != file.header.point_count:
        raise ValueError(
            f"{path} is truncated or damaged: its header promises {file.header.point_count} "
            f"points, {len(fields['x'])} can be read. Copy the file again"
        )
    return {name: column for name, column in fields.items() if column.ndim == 1}
