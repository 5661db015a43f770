"""Read single scans from the usual kinds of file: `.bin`, `.npy`, `.ply` and `.pcd`."""

import warnings
from pathlib import Path

import numpy as np

from geonorm.datasets.pcd import read_pcd
from geonorm.datasets.ply import read_ply
from geonorm.datasets.point_fields import exact_rows
from geonorm.datasets.scan import Scan

SUFFIXES = (".bin", ".npy", ".ply", ".pcd")
_NAMES = ("x", "y", "z", "intensity")
# nuScenes ends its file names so and adds the number of the laser.
_FIVE_COLUMNS = ".pcd.bin"
# Metres between neighbouring float32 numbers that are too many: those beyond 2 km.
_COARSE = 2e-4
# Metres by which float32 may move a point before it is said.
_MOVED = 1e-3

_AS_ARRAY = (
    "Read it by np.fromfile(path, 'f4').reshape(-1, {columns}) and save the columns x, y, z and, "
    "if it has one, the intensity as a .npy file"
)


def read_scan(path: str | Path, intensity_max: float = 1.0) -> Scan:
    """Read a scan without labels; the end of the file's name tells its kind.

    - ``.bin``: float32 x, y, z and intensity of each point, as KITTI and SemanticKITTI store them;
      ``.pcd.bin``: the same and the number of the laser, as nuScenes does.
    - ``.npy``: an array of these columns, (N, 4), or (N, 3) without intensity, of any real dtype.
    - ``.ply``, ``.pcd``: in text or binary, compressed or not, fields of any type. The intensity
      is the field of that name, or CloudCompare's `scalar_intensity`, in upper or lower case.

    x, y and z are metres in the sensor's frame, x ahead and z up. Points with a NaN or an infinite
    value are left out; `Scan.kept` tells which. Without intensity it is 0 throughout, with a
    warning: a network that was trained with intensities is the worse for it.

    float32 does not hold coordinates of a map, such as UTM's, to the centimetre. Where the middle
    of the points is beyond 2 km from the origin, their median, rounded to metres, is subtracted in
    float64 and kept as `Scan.offset`, with a warning.

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
    readers = {".bin": _read_bin_rows, ".npy": _read_npy, ".ply": read_ply, ".pcd": read_pcd}
    rows = readers[path.suffix.lower()](path)
    if rows.shape[1] == 3:
        warnings.warn(
            f"{path} has no intensity; 0 is taken for every point, which a network trained with "
            "intensities does not expect",
            stacklevel=2,
        )
        rows = np.insert(rows, 3, 0.0, axis=1)
    points, offset = _about_middle(rows[:, :3], path)
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and left out
        intensity = (rows[:, 3] / intensity_max).astype(np.float32)
    scan = Scan.from_raw(points, intensity, None, str(path), offset)
    return with_points(scan, path)


def with_points(scan: Scan, path: Path) -> Scan:
    """Return a scan as it is.

    Raises:
        ValueError: it has no point, since none in its file is finite.
    """
    if len(scan) == 0:
        raise ValueError(f"{path} is empty: none of its {scan.dropped} points is finite")
    return scan


def _about_middle(
    places: np.ndarray, path: Path
) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Return places as float32 and what was subtracted first; warn of all that changes them."""
    offset = map_offset(places)
    if any(offset):
        warnings.warn(
            f"{path} lies about {offset}, not about its sensor; that is subtracted, since float32 "
            "would round the points there. Subtract the sensor's place before the file is saved: "
            "a network expects it at the origin",
            stacklevel=3,
        )
        places = places - offset
    with np.errstate(over="ignore"):
        points = places.astype(np.float32)
    if points.dtype == places.dtype:
        return points, offset
    finite = np.isfinite(points).all(axis=1)
    moved = np.abs(places[finite] - points[finite]).max(axis=1, initial=0.0)
    if moved.max(initial=0.0) > _MOVED:
        warnings.warn(
            f"{path}: {int((moved > _MOVED).sum())} of its points are so far away that float32 "
            f"moves them, by up to {moved.max():.3g} m. Cut them off, or divide the file",
            stacklevel=3,
        )
    return points, offset


def map_offset(places: np.ndarray) -> tuple[float, float, float]:
    """Return what to subtract from coordinates that float32 does not hold, else zeros.

    Args:
        places: x, y and z in metres, (N, 3) float64.
    """
    with np.errstate(over="ignore"):
        farthest = np.float32(max(places.max(initial=0), -places.min(initial=0)))
        if np.spacing(farthest) <= _COARSE:  # not so where it is NaN
            return (0.0, 0.0, 0.0)
        finite = places[np.isfinite(places).all(axis=1)]
        if len(finite) == 0:
            return (0.0, 0.0, 0.0)
        # The median: a few points far away must not move a scan from its sensor's frame.
        middle = np.rint(np.median(finite, axis=0))
        coarse = np.spacing(np.abs(middle).max().astype(np.float32)) > _COARSE
    x, y, z = middle.tolist() if coarse else (0.0, 0.0, 0.0)
    return (x, y, z)


def check_file(path: Path) -> None:
    """Refuse what the name and size of a file alone tell to be no scan, or half of one."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ValueError(f"{path} is not a file; expected a scan")
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{path} is empty; expected one scan")
    if path.suffix.lower() == ".bin":
        _check_size(path, size, _columns(path))


def read_bin(path: str | Path, columns: int = 4) -> np.ndarray:
    """Read a `.bin` file of float32: x, y, z in metres, the intensity, and further columns.

    Args:
        path: a file as KITTI's.
        columns: float32 numbers of each point.

    Shape:
        - result: (N, columns), float32

    Raises:
        ValueError: the file is empty, its size is no multiple of its points', or four columns are
            expected and its values are those of five or six.
    """
    data = Path(path).read_bytes()
    if len(data) == 0:
        raise ValueError(f"{path} is empty; expected one scan")
    _check_size(path, len(data), columns)
    values = np.frombuffer(data, dtype="<f4")
    for other in (5, 6) if columns == 4 else ():
        if len(values) % other == 0 and _more_columns(values.reshape(-1, other)):
            raise ValueError(
                f"{path} has {other} columns of float32 by its values; expected 4: x, y, z, "
                f"intensity. {_AS_ARRAY.format(columns=other)}"
            )
    return values.reshape(-1, columns).copy()


def _check_size(path: str | Path, size: int, columns: int) -> None:
    if size % (4 * columns) == 0:
        return
    mend = "Copy the file again"
    for other in (5, 6):
        if size % (4 * other) == 0:
            mend += f". Or has it {other} columns? {_AS_ARRAY.format(columns=other)}"
    raise ValueError(
        f"{path} is truncated: expected a multiple of {4 * columns} bytes, {columns} float32 "
        f"for each point; got {size}. {mend}"
    )


def _more_columns(rows: np.ndarray) -> bool:
    """Return whether all but the first three columns are colours or the like, and those are not.

    Read by a wrong number of columns, places stand in the last columns as often as in the first.
    """

    def is_like_colors(values: np.ndarray) -> bool:
        inside = ((values >= 0) & (values <= 255)).all()  # False for NaN
        return bool(inside and ((values <= 1).all() or (values == np.floor(values)).all()))

    return is_like_colors(rows[:, 3:]) and not is_like_colors(rows[:, :3])


def _columns(path: Path) -> int:
    return 5 if path.name.lower().endswith(_FIVE_COLUMNS) else 4


def _read_bin_rows(path: Path) -> np.ndarray:
    return exact_rows(_NAMES, list(read_bin(path, _columns(path))[:, :4].T), path)


def read_array(path: Path) -> np.ndarray:
    """Read an array of a `.npy` file, and nothing else that such a file may hold.

    Raises:
        ValueError: the file is truncated or damaged, or holds pickled objects.
    """
    try:
        # Mapped, an array that promises more than the file holds is refused before any memory is
        # asked for; and nothing but an array is ever read, least of all a pickle.
        return np.array(np.lib.format.open_memmap(path, mode="r"))
    # A damaged header can raise anything that Python's own parser raises.
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as a .npy array; it is truncated or damaged "
            f"({type(error).__name__}: {error})"
        ) from error


def _read_npy(path: Path) -> np.ndarray:
    array = read_array(path)
    if array.ndim != 2 or array.shape[1] not in (3, 4) or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: expected numbers, (N, 4): x, y, z, intensity, or (N, 3) without intensity; "
            f"got {array.dtype} {array.shape}. Save the columns you mean with np.save"
        )
    return exact_rows(_NAMES[: array.shape[1]], list(array.T), path)
