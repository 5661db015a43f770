"""Scans from any dataset to batches of voxels."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from geonorm.datasets.augmented import Augmented
from geonorm.datasets.joined_scans import JoinedScans
from geonorm.datasets.mixing import ScanMix
from geonorm.datasets.nuscenes import NuScenes
from geonorm.datasets.s3dis import S3DIS
from geonorm.datasets.scan import IGNORE_INDEX, ScanDataset
from geonorm.datasets.scan_folder import ScanFolder
from geonorm.datasets.scan_shards import ScanShards, write_scan_shards
from geonorm.datasets.scannet import ScanNet, ScanNet200
from geonorm.datasets.semantickitti import SemanticKITTI
from geonorm.datasets.semanticposs import SemanticPOSS
from geonorm.datasets.semanticstf import SemanticSTF
from geonorm.datasets.synlidar import SynLiDAR
from geonorm.datasets.synthetic.streets import SyntheticStreets
from geonorm.datasets.transforms import ScanTransform
from geonorm.datasets.views import Viewing, collate_views
from geonorm.datasets.voxelize import STREET_FEATURES, ScanBatch, collate_scans, num_channels
from geonorm.datasets.waymo import Waymo
from geonorm.training.sampler import EpochData, EpochLoader, EpochSampler, trainer_of
from geonorm.training.stages import open_datasets

# Known to the command line by their bare names.
DATASETS = (
    JoinedScans, NuScenes, S3DIS, ScanFolder, ScanNet, ScanNet200, ScanShards, SemanticKITTI,
    SemanticPOSS, SemanticSTF, SynLiDAR, SyntheticStreets, Waymo,
)  # fmt: skip


class LabelCounts(Dataset[Tensor]):
    """How many points of each class every scan of a dataset has, (K,) int64.

    Args:
        dataset: scans with labels.
    """

    def __init__(self, dataset: ScanDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor:
        scan = self.dataset[index]
        if scan.labels is None:
            raise ValueError(f"class weights need labels, which scan {scan.name} lacks")
        known = scan.labels[scan.labels != IGNORE_INDEX]
        return torch.from_numpy(np.bincount(known, minlength=len(self.dataset.classes)))


class ScanData(EpochData):
    """Training, validation and test scans, voxelized by MinkowskiEngine.

    Args:
        train: dataset to train on, such as SemanticKITTI or SyntheticStreets.
        val: dataset to validate on.
        test: dataset to test on; by default that of validation.
        augment: transforms of the training scans, in order, such as RandomRotation or LaserMix.
        root: folder of the data, in place of the one that each dataset names.
        label_map: published map that gives every dataset the same classes in place of its own:
            dglss, lidog or semantickitti.
        voxel_size: edge of a voxel in metres.
        clip_range: lowest x, y, z and highest x, y, z in metres; points outside move to the edge.
        features: what the network sees of each point, `position`, `intensity`, `color`, `normal`,
            `echo` or `height`, and what counts as 1 of each: one number, or one for each column.
            By default x, y, z over 20, 20 and 2 m, and the intensity.
        votes: views of each scan in a test, whose scores are averaged: turned by quarters, from the
            fifth on mirrored, and moved within a voxel; 1 for the scan as it is.
        chunk: edge in metres of the squares, seen from above, in which scans are validated and
            tested, for rooms of millions of points; by default they stay whole.
        overlap: least share of a chunk's edge that lies in the next one too.
        batch_size: scans per step and device.
        num_workers: processes that read and voxelize scans.
        seed: seed of the order and the augmentation of training scans; set by --seed_everything.
    """

    def __init__(
        self,
        train: Callable[[], Dataset[Any]] | None = None,
        val: Callable[[], Dataset[Any]] | None = None,
        test: Callable[[], Dataset[Any]] | None = None,
        augment: list[ScanTransform | ScanMix] | None = None,
        root: Path | None = None,
        label_map: str | None = None,
        voxel_size: float = 0.1,
        clip_range: list[float] | None = None,
        features: dict[str, float | list[float]] | None = None,
        votes: int = 1,
        chunk: float | None = None,
        overlap: float = 0.5,
        batch_size: int = 4,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.factories: dict[str, Callable[..., Any] | None] = {
            "train": train, "val": val, "test": test or val
        }
        self.options = {
            name: value for name, value in (("root", root), ("label_map", label_map)) if value
        }
        self.augment = augment or []
        chosen = STREET_FEATURES if features is None else features
        self.in_channels = num_channels(chosen)
        self.collate = partial(
            collate_scans, voxel_size=voxel_size, clip_range=clip_range, features=dict(chosen)
        )
        self.viewing = {
            "train": Viewing(),
            "val": Viewing(1, chunk, overlap),
            "test": Viewing(votes, chunk, overlap),
        }
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.datasets: dict[str, Augmented] = {}

    unit = "points"

    @staticmethod
    def count(batch: ScanBatch) -> int:
        """Return how many points a batch has."""
        return len(batch.points)

    def setup(self, stage: str) -> None:
        """Open the datasets of a stage."""
        super().setup(stage)
        open_datasets(stage, self.datasets, self._open)

    def write_shards(self, name: str, folder: Path, size: int) -> tuple[int, int]:
        """Write the scans of a split, as they are stored, and return how many, and the new shards.

        Raises:
            ValueError: they are of several data sets, which mixes would no longer tell apart.
        """
        dataset: Any = self._open(name).dataset
        if isinstance(dataset, JoinedScans):
            raise ValueError(
                "JoinedScans are several data sets: write the shards of each, and join ScanShards"
            )
        return len(dataset), write_scan_shards(dataset, folder, size, self.num_workers)

    def _open(self, name: str) -> Augmented:
        factory = self.factories[name]
        if factory is None:
            raise ValueError(f"no dataset to {name}; give --data.{name} or a --config with one")
        try:
            dataset = factory(**self.options)
        except TypeError as error:
            if "unexpected keyword argument 'label_map'" not in str(error):
                raise
            raise ValueError(
                f"the dataset to {name} takes no label map ({error}); leave --data.label_map "
                "out, and name the map at each data set that has it"
            ) from error
        return Augmented(dataset, self.augment if name == "train" else (), self.seed)

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes of the open datasets, None before there is one."""
        return next((list(d.classes) for d in self.datasets.values()), None)

    @property
    def num_domains(self) -> int:
        """How many domains the training scans come from, else those that are open."""
        known = self.datasets.get("train", next(iter(self.datasets.values()), None))
        return 1 if known is None else known.num_domains

    @property
    def colors(self) -> list[list[int]] | None:
        """Colours of the classes, RGB."""
        return next((d.colors.tolist() for d in self.datasets.values()), None)

    def class_counts(self) -> Tensor:
        """Count the points of each class in the training scans as they are stored, (K,) int64.

        This reads every scan once; of endless data it counts the first epoch.
        """
        counts = LabelCounts(self.datasets["train"].dataset)
        each = DataLoader(counts, batch_size=None, num_workers=self.num_workers)
        return torch.stack(list(each)).sum(0)

    def _loader(self, name: str) -> EpochLoader:
        dataset, shuffle, viewing = self.datasets[name], name == "train", self.viewing[name]
        collate = self.collate
        if viewing.several:
            collate = partial(collate_views, viewing=viewing, **self.collate.keywords)
        trainer = trainer_of(self)
        rank, world_size = trainer.global_rank, trainer.world_size
        return EpochLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=EpochSampler(dataset, shuffle, self.seed, rank, world_size),
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            # A short last batch would weigh its scans more than the others.
            drop_last=shuffle and len(dataset) >= self.batch_size * world_size,
        )

    def train_dataloader(self) -> DataLoader[Any]:
        return self.placed(self._loader("train"))

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader("test")

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint tells of its voxels, so that it is usable alone."""
        return {**self.collate.keywords, **super().state_dict()}
