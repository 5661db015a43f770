"""Videos of any dataset to batches of clips."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader

from geonorm.datasets import (
    HMDB51,
    UCF101,
    AppearanceShift,
    ClassFolders,
    ClipCorruption,
    ClipDataset,
    ClipShards,
    ClipTransform,
    Diving48,
    FileReport,
    Kinetics,
    SomethingSomethingV2,
    SyntheticActions,
    VideoList,
    VideoSet,
)
from geonorm.datasets.clip_shards import write_clip_shards
from geonorm.datasets.clips import Sampling
from geonorm.datasets.video_transforms import KINETICS_MEAN, KINETICS_STD
from geonorm.training.sampler import EpochData, EpochLoader, EpochSampler, trainer_of
from geonorm.training.stages import open_datasets

# Known to the command line by their bare names.
VIDEO_SETS = (
    ClassFolders, ClipShards, VideoList, UCF101, HMDB51, Kinetics, SomethingSomethingV2, Diving48,
    SyntheticActions,
)  # fmt: skip


STILL = "still"
# How frames are chosen in training, and to judge and predict.
SAMPLING: dict[str, tuple[Sampling, Sampling]] = {
    "random": ("random", "dense"), "uniform": ("segments", "uniform"),
}


class ClipBatch(Protocol):
    """Several clips as torch collates them: a Clip whose fields hold those of all, (B, …) each."""

    video: Tensor
    label: Tensor
    video_index: Tensor
    path: list[str]


@dataclass(frozen=True)
class ClipFormat:
    """Format of a clip, from the choice of frames to the network's input.

    Args:
        length: frames in a clip.
        step: frames from one to the next.
        fps: count `step` in frames of this rate, whatever each video's own is.
        sampling: "random": frames `step` apart from a random start (judged: from starts spread
            over the video), or "uniform": frames spread over the whole video.
        size: what frames are resized to: shorter side, or [height, width], in pixels.
        crop: side of the square that the network sees, in pixels.
        scale: least and largest part of the picture that a random crop covers; null crops without
            resizing.
        flip: probability of mirroring left and right in training.
        jitter: strength of random changes of colour in training, 0 to 1.
        mean: of red, green and blue, in [0, 1].
        std: likewise.
        rand_augment: magnitude, up to 30, of two changes that RandAugment (Cubuk et al., 2020)
            draws for each training clip, the same in all its frames; 0 for none.
    """

    length: int = 16
    step: int = 1
    fps: float | None = None
    sampling: Literal["random", "uniform"] = "random"
    size: int | tuple[int, int] = (128, 171)
    crop: int = 112
    scale: tuple[float, float] | None = None
    flip: float = 0.0
    jitter: float = 0.0
    mean: tuple[float, float, float] = KINETICS_MEAN
    std: tuple[float, float, float] = KINETICS_STD
    rand_augment: int = 0


def clips_of(
    videos: VideoSet,
    clip: ClipFormat,
    *,
    train: bool = False,
    still: bool = False,
    views: int = 1,
    portion: tuple[float, float] = (0.0, 1.0),
    shift: AppearanceShift | ClipCorruption | None = None,
    repeats: int = 1,
    seed: int = 0,
) -> ClipDataset:
    """Return the clips of some videos in the form that a network is trained on.

    Args:
        videos: the files.
        clip: what a clip is.
        train: draw frames and changes at random.
        still: make clips of one frame repeated.
        views: clips of each video.
        portion: part of each video to draw from, as fractions of its length.
        shift: a change of appearance or a corruption laid on every clip.
        repeats: clips of each video to train on, each drawn by itself.
        seed: of everything random.
    """
    trained, judged = SAMPLING[clip.sampling]
    sampling = trained if train else judged
    return ClipDataset(
        videos,
        length=clip.length,
        step=clip.step,
        fps=clip.fps,
        sampling="still" if still else sampling,
        views=views,
        repeats=repeats if train else 1,
        portion=portion,
        size=clip.size,
        transform=ClipTransform(
            clip.crop,
            train=train,
            scale=clip.scale,
            flip=clip.flip,
            jitter=clip.jitter,
            rand_augment=clip.rand_augment,
            shift=shift,
            mean=clip.mean,
            std=clip.std,
        ),
        seed=seed,
    )


class ClipData(EpochData):
    """Training, validation and test clips, decoded by PyAV; files that fail are left out.

    Args:
        train: videos to train on, such as UCF101, Kinetics or ClassFolders.
        val: videos to validate on, one clip of each.
        test: videos to test on; by default those of validation.
        root: folder of the data, in place of the one that each set of videos names.
        clip: what a clip is.
        views: clips of each video whose scores are averaged, to test and predict.
        train_portion: part of each training video to draw from, as fractions of its length.
        eval_portion: likewise of each validation and test video.
        still: clips of one frame repeated, which show appearance without motion: "also" judges
            them beside the real ones where a validation or test stands alone, "only" in their
            place.
        shift: a change of appearance or a corruption laid on every validation and test clip.
        batch_size: clips per step and device.
        num_workers: processes that decode.
        repeats: clips of each video in a training batch, each drawn by itself (repeated
            augmentation); an epoch is so many times longer. A divisor of batch_size.
        seed: seed of order, clips and changes in training; set by --seed_everything.
    """

    def __init__(
        self,
        train: Callable[[], VideoSet] | None = None,
        val: Callable[[], VideoSet] | None = None,
        test: Callable[[], VideoSet] | None = None,
        root: Path | None = None,
        clip: ClipFormat = ClipFormat(),
        views: int = 5,
        train_portion: tuple[float, float] = (0.0, 1.0),
        eval_portion: tuple[float, float] = (0.0, 1.0),
        still: Literal["no", "also", "only"] = "no",
        shift: AppearanceShift | ClipCorruption | None = None,
        batch_size: int = 24,
        num_workers: int = 4,
        repeats: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if repeats < 1 or batch_size % repeats:
            raise ValueError(
                f"repeats must be at least 1 and divide batch_size; got {repeats} and {batch_size}"
            )
        self.repeats = repeats
        self.factories: dict[str, Callable[..., VideoSet] | None] = {
            "train": train, "val": val, "test": test or val
        }
        self.root = root
        self.clip, self.views, self.still, self.shift = clip, views, still, shift
        self.portions = {"train": train_portion, "val": eval_portion, "test": eval_portion}
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.datasets: dict[str, ClipDataset] = {}

    unit = "clips"

    @staticmethod
    def count(batch: ClipBatch) -> int:
        """Return how many clips a batch has."""
        return len(batch.label)

    def setup(self, stage: str) -> None:
        """Open the videos of a stage."""
        super().setup(stage)
        open_datasets(stage, self.datasets, self._open)
        if self.still == "also" and stage in ("validate", "test"):
            name = "val" if stage == "validate" else "test"
            self.datasets[STILL] = self._clips(name, self.videos(name), still=True)

    def _open(self, name: str) -> ClipDataset:
        return self._clips(name, self.videos(name), self.still == "only" and name != "train")

    def videos(self, name: str) -> VideoSet:
        """Return the list of videos to train, validate or test on."""
        factory = self.factories[name]
        if factory is None:
            raise ValueError(f"no videos to {name}; give --data.{name} or a --config with some")
        videos = factory() if self.root is None else factory(root=self.root)
        if name == "train" and any(label < 0 for _, label in videos.videos):
            raise ValueError("videos to train on must all have labels; some have none")
        return videos

    def write_shards(self, name: str, folder: Path, size: int) -> tuple[int, int]:
        """Write the videos of a split, and return how many, and how many shards are new."""
        videos = self.videos(name)
        return len(videos), write_clip_shards(videos, folder, size, self.num_workers)

    def prepare_data(self) -> None:
        """Index the videos in the first process of each machine, before the others read that."""
        function = trainer_of(self).state.fn
        if function is not None:
            self.setup(function.value)

    def _clips(self, name: str, videos: VideoSet, still: bool = False) -> ClipDataset:
        """Return the clips of a stage's videos."""
        train = name == "train"
        return clips_of(
            videos,
            self.clip,
            train=train,
            still=still,
            views=self.views if name == "test" and not still else 1,
            portion=self.portions[name],
            shift=None if train else self.shift,
            repeats=self.repeats,
            seed=self.seed,
        )

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes of the open datasets, None before there is one."""
        return next((list(dataset.classes) for dataset in self.datasets.values()), None)

    def judged(self, stage: str) -> list[ClipDataset]:
        """Return what a stage judges: its clips and, where asked for, those of one frame each."""
        names = {"fit": ["val"], "validate": ["val", STILL], "test": ["test", STILL]}
        return [self.datasets[name] for name in names.get(stage, ()) if name in self.datasets]

    def failures(self) -> list[FileReport]:
        """Return every file that could not be read, or not well, so far."""
        reports = [report for dataset in self.datasets.values() for report in dataset.report()]
        return list({(report.path, report.kind): report for report in reports}.values())

    def _loader(self, dataset: ClipDataset, stage: str) -> EpochLoader:
        train = stage == "train"
        trainer = trainer_of(self)
        rank, world_size = trainer.global_rank, trainer.world_size
        return EpochLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=EpochSampler(
                dataset, train, self.seed, rank, world_size, self.repeats,
                self.batch_size // self.repeats,
            ),
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=train and self.num_workers > 0,
            # A short last batch would weigh its clips more than the others.
            drop_last=train and len(dataset) >= self.batch_size * world_size,
        )

    def train_dataloader(self) -> DataLoader[Any]:
        return self.placed(self._loader(self.datasets["train"], "train"))

    def val_dataloader(self) -> list[DataLoader[Any]]:
        stage = "fit" if trainer_of(self).state.fn == TrainerFn.FITTING else "validate"
        return [self._loader(dataset, stage) for dataset in self.judged(stage)]

    def test_dataloader(self) -> list[DataLoader[Any]]:
        return [self._loader(dataset, "test") for dataset in self.judged("test")]

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint tells of its clips, so that it is usable alone."""
        return {"clip": asdict(self.clip), "views": self.views, **super().state_dict()}
