"""Scans in shards: what any data set of scans yields, written once and read by number."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from geonorm.datasets.scan import IGNORE_INDEX, Scan, ScanDataset
from geonorm.datasets.shards import Shards, write_shards


class ScanShards(Dataset[Scan]):
    """The scans that `geonorm train-seg write-shards` wrote, the same in every epoch.

    Each is, to the bit, what the data set that was written gives.

    Args:
        root: folder of the folders of splits.
        split: one of these, `train`, `val` or `test`.

    Raises:
        ValueError: no finished shards of scans there, some are missing, and, on reading a scan,
            the shard is damaged.

    Example:
        >>> ScanShards("/nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: no index.json in /nowhere/train: expected a folder that geonorm ...
    """

    ignore_index = IGNORE_INDEX

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self._shards = Shards(Path(root) / split, "scans")
        about = self._shards.about
        self.classes = tuple(about["classes"])
        self.colors = np.array(about["colors"], dtype=np.uint8)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the scans are the same in every epoch."""

    def __len__(self) -> int:
        return len(self._shards.samples)

    def __getitem__(self, index: int) -> Scan:
        members = self._shards.samples[index].read()
        told = json.loads(members.pop("json"))
        arrays = {
            suffix.removesuffix(".npy"): np.load(io.BytesIO(data), allow_pickle=False)
            for suffix, data in members.items()
        }
        points, intensity = arrays.pop("points"), arrays.pop("intensity", None)
        labels, kept = arrays.pop("labels", None), arrays.pop("kept", None)
        return Scan(
            points,
            intensity,
            None if labels is None else labels.astype(np.int64),
            told["name"],
            dropped=told["dropped"],
            kept=kept,
            offset=tuple(told["offset"]),
            extra=arrays,
            domain=told["domain"],
        )


def write_scan_shards(
    dataset: ScanDataset, folder: str | Path, size: int = 128, workers: int = 0
) -> int:
    """Write a data set of scans as shards and return how many are new; see `write_shards`.

    Args:
        dataset: scans; of data that is drawn anew in each epoch, those of the first.
        folder: of this split.
        size: scans in a shard.
        workers: processes that write.
    """
    about = {"classes": list(dataset.classes), "colors": np.asarray(dataset.colors).tolist()}
    return write_shards(
        folder, "scans", _Members(dataset), len(dataset), about, size=size, workers=workers
    )


class _Members:
    """The members of each scan of a data set."""

    def __init__(self, dataset: ScanDataset) -> None:
        self.dataset = dataset

    def __call__(self, number: int) -> Mapping[str, bytes]:
        scan = self.dataset[number]
        arrays: dict[str, Any] = {
            "points": scan.points, "intensity": scan.intensity, "kept": scan.kept, **scan.extra
        }  # fmt: skip
        if scan.labels is not None:
            low, high = scan.labels.min(initial=0), scan.labels.max(initial=0)
            arrays["labels"] = scan.labels.astype(
                np.promote_types(np.min_scalar_type(low), np.min_scalar_type(high))
            )
        told = {"name": scan.name, "dropped": scan.dropped, "offset": list(scan.offset),
                "domain": scan.domain}  # fmt: skip
        return {"json": json.dumps(told).encode()} | {
            f"{name}.npy": _npy(array) for name, array in arrays.items() if array is not None
        }


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
