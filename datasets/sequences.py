"""Labelled scans in numbered sequences, the layout of SemanticKITTI and of others after it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from geonorm.datasets.label_ids import LabelIds
from geonorm.datasets.label_map import mapped
from geonorm.datasets.scan import Scan
from geonorm.datasets.scan_files import ScanFiles, check_complete, first_folder, own
from geonorm.datasets.scan_io import read_bin, with_points
from geonorm.names import did_you_mean


class Sequences(ScanFiles):
    """The scans `NN/velodyne/*.bin` and their labels `NN/labels/*.label`, by sequence and frame.

    A dataset names what is its own:

    Attributes:
        ids: the ids of its label files.
        splits: the sequences of each of its splits.
        places: folders of its root that may hold the sequences; an empty name for the root.
        holds: patterns of what must be in one of these.
        unlabelled: sequences without labels.

    Args:
        root: folder of the dataset.
        split: name of a split, or a list of sequences such as `["00", "08"]`.
        label_map: a published map that gives other classes, one of `label_maps`.

    Raises:
        ValueError: a missing folder (naming the paths tried), an unknown split or map, a sequence
            without scans, scans without labels, and, on reading a scan, a broken file (naming it).
    """

    ids: LabelIds
    splits: Mapping[str, Sequence[str]]
    places: Sequence[str]
    holds: Sequence[str] = ("*/velodyne",)
    unlabelled: Sequence[str] = ()

    def __init__(
        self,
        root: str | Path,
        split: str | Sequence[str] = "train",
        label_map: str | None = None,
    ) -> None:
        self.ids = mapped(self.ids, label_map)
        self.classes, self.colors = self.ids.names, self.ids.colors
        sequences = self._sequences(split)
        folder = self._folder(Path(root))
        self.files = [file for name in sequences for file in self._scan_files(folder, name)]
        if not self.files:
            raise ValueError(f"split must name at least one sequence; got {split!r}")

    @classmethod
    def _sequences(cls, split: str | Sequence[str]) -> Sequence[str]:
        if not isinstance(split, str):
            return [str(sequence).zfill(2) for sequence in split]
        if split not in cls.splits:
            meant = f" Did you mean [{split!r}]?" if split.isdigit() else did_you_mean(
                split, cls.splits
            )  # fmt: skip
            raise ValueError(
                f"split must be one of {', '.join(cls.splits)} or a list of sequences; "
                f"got {split!r}.{meant}"
            )
        return cls.splits[split]

    @classmethod
    def _folder(cls, root: Path) -> Path:
        """Return the folder of the sequences."""
        tried = [root / place for place in cls.places]
        return first_folder(cls.ids.dataset, root, tried, cls.holds)

    @classmethod
    def _scan_files(cls, folder: Path, sequence: str) -> list[Path]:
        files = own(folder / sequence / "velodyne", "*.bin")
        if not files:
            raise ValueError(
                f"no scans in {folder / sequence / 'velodyne'} (expected NNNNNN.bin files); "
                f"{cls._mend(folder, sequence)}"
            )
        if sequence not in cls.unlabelled:
            labelled = {file.stem for file in own(folder / sequence / "labels", "*.label")}
            check_complete(
                cls.ids.dataset, [files[0].with_stem(name) for name in sorted(labelled)]
            )
            missing = [file for file in files if file.stem not in labelled]
            if missing:
                others = f"; {len(missing)} of {len(files)} scans there lack them"
                raise ValueError(
                    f"{missing[0]} has no labels; expected them in {_label_file(missing[0])}"
                    + (others if missing[1:] else "")
                )
        return files

    @classmethod
    def _mend(cls, folder: Path, sequence: str) -> str:
        """Return what to do about a sequence that is not there."""
        return "give the sequences you have as a list, such as split=['00']"

    def _intensity(self, raw: np.ndarray) -> np.ndarray:
        """Return the intensities of a file in [0, 1]."""
        return raw

    def __getitem__(self, index: int) -> Scan:
        file = self.files[index]
        sequence = file.parent.parent.name
        rows = read_bin(file)
        labels = None
        if sequence not in self.unlabelled:
            labels = self.ids.read(_label_file(file), len(rows))
        intensity = self._intensity(rows[:, 3])
        scan = Scan.from_raw(rows[:, :3], intensity, labels, f"{sequence}/{file.stem}")
        return with_points(scan, file)


def _label_file(file: Path) -> Path:
    return file.parent.parent / "labels" / f"{file.stem}.label"
