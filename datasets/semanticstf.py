"""SemanticSTF: scans in fog, rain and snow, with the classes of SemanticKITTI."""

from pathlib import Path

import numpy as np

from geonorm.datasets.label_ids import LabelIds
from geonorm.datasets.label_map import mapped, maps_of, shared_classes
from geonorm.datasets.scan import Scan
from geonorm.datasets.scan_files import ScanFiles, check_complete, first_folder, own
from geonorm.datasets.scan_io import read_bin, with_points
from geonorm.datasets.scan_layouts import looks_like
from geonorm.names import choices

SPLITS = ("train", "val", "test")
WEATHERS = ("dense_fog", "light_fog", "rain", "snow")
_INTENSITY_MAX = np.float32(255)
# The files number the classes from 1; 0 is a point without a label, 20 one that is no object.
_IDS = LabelIds("SemanticSTF", shared_classes("semantickitti", "SemanticSTF"), (0, 20))


class SemanticSTF(ScanFiles):
    """The labelled scans of SemanticSTF, the 19 classes of SemanticKITTI in adverse weather.

    A scan has five numbers for each point: x, y, z, an intensity up to 255, which is divided by
    that, and the ring, which is not used. The labels are 0 to 20, not SemanticKITTI's ids.

    Args:
        root: folder that holds `train`, `val` and `test`, each with `velodyne` and `labels`.
        split: `"train"`, `"val"` or `"test"`.
        weather: `"dense_fog"`, `"light_fog"`, `"rain"` or `"snow"` for the scans in this weather
            alone, as `SPLIT/SPLIT.txt` tells; by default all.
        label_map: `"semantickitti"`, which has the same classes.

    Raises:
        ValueError: a missing folder (naming it), an unknown split, weather or map, a split without
            scans or with scans that have no labels, a list of the weather that is missing or lacks
            a scan, and, on reading a scan, a broken file (naming it).

    Example:
        >>> SemanticSTF("/nowhere", weather="snow")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: no SemanticSTF under /nowhere; tried ...

    Source: Xiao et al., "3D Semantic Segmentation in the Wild: Learning Generalized Models for
    Adverse-Condition Point Clouds", 2023.
    """

    classes, colors, raw_ids = _IDS.names, _IDS.colors, _IDS.raw_ids
    label_maps = maps_of("SemanticSTF")

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        weather: str | None = None,
        label_map: str | None = None,
    ) -> None:
        self.ids = mapped(_IDS, label_map)
        if split not in SPLITS:
            raise ValueError(f"no split {split!r} of SemanticSTF; {choices(split, SPLITS)}")
        if weather is not None and weather not in WEATHERS:
            raise ValueError(f"no weather {weather!r}; {choices(weather, WEATHERS)}")
        folder = first_folder("SemanticSTF", Path(root), (Path(root) / split,))
        self.files = own(folder / "velodyne", "*.bin")
        if not self.files:
            raise ValueError(
                f"no scans in {folder / 'velodyne'} (expected .bin files)"
                f"{looks_like(Path(root), 'SemanticSTF')}"
            )
        velodyne = folder / "velodyne"
        scans = [velodyne / f"{label.stem}.bin" for label in own(folder / "labels", "*.label")]
        check_complete("SemanticSTF", [self._label_file(file) for file in self.files])
        check_complete("SemanticSTF", scans)
        if weather is not None:
            weathers = read_weathers(folder / f"{split}.txt")
            missing = [file.name for file in self.files if file.stem not in weathers]
            if missing:
                raise ValueError(
                    f"{folder / split}.txt does not tell the weather of {len(missing)} of "
                    f"{len(self.files)} scans, such as {missing[0]}; expected a line "
                    f"{missing[0]},{weather}"
                )
            self.files = [file for file in self.files if weathers[file.stem] == weather]
            if not self.files:
                raise ValueError(f"{folder / split}.txt tells of no scan in {weather}")

    @staticmethod
    def _label_file(file: Path) -> Path:
        return file.parent.parent / "labels" / f"{file.stem}.label"

    def __getitem__(self, index: int) -> Scan:
        file = self.files[index]
        rows = read_bin(file, columns=5)
        labels = self.ids.read(self._label_file(file), len(rows))
        name = f"{file.parent.parent.name}/{file.stem}"
        scan = Scan.from_raw(rows[:, :3], rows[:, 3] / _INTENSITY_MAX, labels, name)
        return with_points(scan, file)


def read_weathers(path: Path) -> dict[str, str]:
    """Read the weather of each scan, by its name without a suffix.

    Args:
        path: a text of lines such as `scan.bin,dense_fog`.

    Raises:
        ValueError: there is no such file, or a line is of another form.
    """
    if not path.is_file():
        raise ValueError(
            f"no list of the weather of each scan {path}; expected lines name,weather, which come "
            "with the data set. Without weather= the scans of all weathers are taken"
        )
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        name, _, weather = (part.strip() for part in line.rpartition(","))
        if not line.strip():
            continue
        if not name or weather not in WEATHERS:
            raise ValueError(
                f"{path}, line {number}: expected name,weather with the weather one of "
                f"{', '.join(WEATHERS)}; got {line!r}"
            )
        found[name.removesuffix(".bin").removesuffix(".label")] = weather
    return found
