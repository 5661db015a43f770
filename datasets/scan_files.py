"""What the datasets of a benchmark share: their folders, their files, and what is missing there."""

from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import Dataset

from geonorm.datasets.progress import in_threads
from geonorm.datasets.scan import IGNORE_INDEX, Scan
from geonorm.datasets.scan_layouts import looks_like
from geonorm.datasets.submission import Submission
from geonorm.files import is_hidden
from geonorm.names import did_you_mean

_NAMED = 3  # missing files in an error


class ScanFiles(Dataset[Scan]):
    """Scans in files, the same in every epoch.

    Attributes:
        files: file or folder of each scan.
        label_maps: published maps that give these scans other classes, by name.
        submission: what the benchmark's server takes for these scans; None where it judges others.
    """

    ignore_index = IGNORE_INDEX
    files: list[Path]
    label_maps: tuple[str, ...] = ()

    @property
    def submission(self) -> Submission | None:
        return None

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the scans are the same in every epoch."""

    def __len__(self) -> int:
        return len(self.files)


def known_split(split: str, splits: Sequence[str], of_list: str | None = None) -> str:
    """Return a split that is known.

    Args:
        split: its name.
        splits: the known ones.
        of_list: what a list would hold in place of a name, such as `scenes`; None where no list
            is taken.

    Raises:
        ValueError: it is another.
    """
    if split not in splits:
        other = f" or a list of {of_list}" if of_list else ""
        raise ValueError(
            f"split must be one of {', '.join(splits)}{other}; got {split!r}."
            f"{did_you_mean(split, splits)}"
        )
    return split


def first_folder(
    dataset: str, root: Path, tried: Sequence[Path], holds: Sequence[str] = ()
) -> Path:
    """Return the first folder that is there.

    Args:
        dataset: its name, for the error.
        root: the folder that the user gave.
        tried: where it may be.
        holds: patterns of what must be in it, one of them; by default it may be empty.

    Raises:
        ValueError: none is (naming those tried, and what `root` looks like).
    """
    for folder in tried:
        if folder.is_dir() and (not holds or any(own(folder, pattern) for pattern in holds)):
            return folder
    raise ValueError(
        f"no {dataset} under {root}; tried {' and '.join(map(str, tried))}"
        f"{looks_like(root, dataset)}"
    )


def own(folder: Path, pattern: str = "*") -> list[Path]:
    """Return what the user has in a folder, in the order of names; nothing where there is none."""
    return sorted(path for path in folder.glob(pattern) if not is_hidden(path))


def check_complete(dataset: str, files: Sequence[Path], root: Path | None = None) -> None:
    """Refuse half a download.

    Args:
        dataset: its name, for the error.
        files: what must be there.
        root: the folder that the user gave; where nothing is there, the error tells what it looks
            like.

    Raises:
        ValueError: some of the files are missing, naming the first.
    """
    there = in_threads(Path.exists, files, f"looking for the files of {dataset}")
    missing = [file for file, exists in zip(files, there, strict=True) if not exists]
    if missing:
        shown = ", ".join(map(str, missing[:_NAMED])) + (", …" if missing[_NAMED:] else "")
        raise ValueError(
            f"{dataset} is incomplete: {len(missing)} of {len(files)} files are missing: {shown}. "
            "Download or unpack them again"
            + (looks_like(root, dataset) if root and len(missing) == len(files) else "")
        )
