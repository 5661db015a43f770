"""Single scans from the usual kinds of file: `.bin`, `.npy`, and `.ply` and `.pcd` by Open3D."""

import warnings
from pathlib import Path

import numpy as np

from geonorm.datasets.open3d_cloud import read_cloud
from geonorm.datasets.scan import Scan

SUFFIXES = (".bin", ".npy", ".ply", ".pcd")
# nuScenes ends its file names so and adds the number of the laser.
_FIVE_COLUMNS = ".pcd.bin"


def read_scan(path: str | Path, intensity_max: float = 1.0) -> Scan:
    """Read a scan without labels; the end of the file's name tells its kind.

    - ``.bin``: float32 x, y, z and intensity of each point, as KITTI and SemanticKITTI store them;
      ``.pcd.bin``: the same and the number of the laser, as nuScenes does.
    - ``.npy``: an array of these columns, (N, 4), or (N, 3) without intensity, of any real dtype.
    - ``.ply``, ``.pcd``: whatever Open3D reads; the intensity is the field of that name, or
      CloudCompare's `scalar_intensity`, in upper or lower case.

    x, y and z are metres in the sensor's frame, x ahead and z up. Points with a NaN or an infinite
    value are left out; `Scan.kept` tells which. Without intensity it is 0 throughout, with a
    warning: a network that was trained with intensities is the worse for it.

    Args:
        path: the file.
        intensity_max: the file's intensity that counts as 1, such as 255.

    Raises:
        ValueError: a missing, truncated, damaged or empty file, another kind of file or number of
            columns, an intensity outside [0, intensity_max].

    Example:
        >>> read_scan("street.las")
        Traceback (most recent call last):
        ValueError: street.las: expected a file that ends in .bin, .npy, .ply, .pcd
    """
    path = Path(path)
    check_file(path)
    if not intensity_max > 0:
        raise ValueError(f"intensity_max must be a positive number; got {intensity_max}")
    kind = path.suffix.lower()
    rows = {".bin": _read_bin, ".npy": _read_npy}.get(kind, read_cloud)(path)
    if rows.shape[1] == 3:
        warnings.warn(
            f"{path} has no intensity; 0 is taken for every point, which a network trained with "
            "intensities does not expect",
            stacklevel=2,
        )
        rows = np.concatenate([rows, np.zeros((len(rows), 1), rows.dtype)], axis=1)
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and left out
        rows = rows.astype(np.float32)
    scan = Scan.from_raw(rows[:, :3], rows[:, 3] / np.float32(intensity_max), None, str(path))
    if len(scan) == 0:
        raise ValueError(f"{path} is empty: none of its {len(rows)} points is finite")
    return scan


def check_file(path: Path) -> None:
    """Refuse what the name and size of a file alone tell to be no scan, or half of one."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ValueError(f"{path} is not a file; expected a scan")
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{path} is empty; expected one scan")
    columns = _columns(path)
    if path.suffix.lower() == ".bin" and size % (4 * columns):
        raise ValueError(
            f"{path} is truncated: expected a multiple of {4 * columns} bytes, {columns} float32 "
            f"for each point; got {size}. Copy the file again"
        )


def _columns(path: Path) -> int:
    return 5 if path.name.lower().endswith(_FIVE_COLUMNS) else 4


def _read_bin(path: Path) -> np.ndarray:
    return np.fromfile(path, dtype="<f4").reshape(-1, _columns(path))[:, :4]


def _read_npy(path: Path) -> np.ndarray:
    try:
        # Mapped, an array that promises more than the file holds is refused before any memory is
        # asked for; and nothing but an array is ever read, least of all a pickle.
        array = np.array(np.lib.format.open_memmap(path, mode="r"))
    # A damaged header can raise anything that Python's own parser raises.
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as a .npy array; it is truncated or damaged "
            f"({type(error).__name__}: {error})"
        ) from error
    if array.ndim != 2 or array.shape[1] not in (3, 4) or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: expected numbers, (N, 4): x, y, z, intensity, or (N, 3) without intensity; "
            f"got {array.dtype} {array.shape}. Save the columns you mean with np.save"
        )
    return array
