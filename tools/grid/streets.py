"""Streets: a small MinkUNet trained on simulated scans, judged on others and on a real one."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from geonorm import BatchNorm, InstanceNorm
from geonorm.datasets import Scan, SemanticKITTI, SyntheticStreets
from geonorm.datasets.scan import IGNORE_INDEX, ScanDataset
from geonorm.datasets.scan_corruptions import Corruption, levels, rings
from geonorm.datasets.synthetic.lidar import SENSORS, LidarSensor
from geonorm.datasets.transforms import RandomFlip, RandomIntensity, ScanTransform
from geonorm.datasets.voxelize import collate_scans
from geonorm.models.norm import InputNorm
from geonorm.training.optimization import Optimization
from geonorm.training.segmentation.data import ScanData
from geonorm.training.segmentation.module import SegmentationModule
from geonorm.training.segmentation.networks import CHANNELS, voxel_logits
from geonorm.training.segmentation.scores import class_iou
from geonorm.training.shift.evaluate import CLEAN
from geonorm.training.shift.scans import ScanTask
from grid.cells import AT_TEST, BROKEN, COMPANIONS, ON_INPUT, Cell, norm_of
from grid.rivals import Adapted, mix_styles_after
from grid.tests import LEVELS, EveryTest, Network, Samples, Test, judge

# Seeds of data; that of a training is the first one and the cell's own.
TRAINING_SEED, TEST_SEED, VALIDATION_SEED = 1000, 1, 2
TRAINED_ON = SENSORS["roof32"]


class Variant(NamedTuple):
    """Streets that are trained on.

    Args:
        scans: a data set of a number of scans and a seed.
        longer: times as many steps.
        validated: a data set, as above, on which the network is validated.
        finer: times as many voxels to a metre.
        more: times as many scans.
        changes: made to each scan whenever it is trained on.
    """

    scans: Callable[[int, int], ScanDataset]
    longer: int = 1
    validated: Callable[[int, int], ScanDataset] = partial(SyntheticStreets, sensor=TRAINED_ON)
    finer: float = 1.0
    more: int = 1
    changes: tuple[ScanTransform, ...] = ()


# Every second ray of a turn: four fifths of the voxels in two thirds of the time.
HDL64 = replace(SENSORS["hdl64"], azimuth_steps=1041)
FAINT = partial(SyntheticStreets, sensor=HDL64, style="suburb")
# As before the sensor's intensities were fitted to those of a real scan.
GUESSED = replace(
    HDL64, intensity_gain=0.9, intensity_offset=-0.02, response=0.6, falloff_power=2.0,
    faint_range=np.inf,
)  # fmt: skip
GARDENS = partial(SyntheticStreets, sensor=HDL64, style="gardens")
SUBURB = partial(SyntheticStreets, sensor=GUESSED, style="suburb")
VARIANTS = {
    "plain": Variant(SyntheticStreets),
    "suburb": Variant(SUBURB),
    "longer suburb": Variant(SUBURB, longer=4, validated=SUBURB),
    "faint suburb": Variant(FAINT, longer=4, validated=FAINT),
    "fine suburb": Variant(FAINT, longer=4, validated=FAINT, finer=1.5),
    "garden suburb": Variant(
        GARDENS, longer=4, validated=GARDENS, more=4, changes=(RandomFlip(),)
    ),
}
# Each differs in one respect from the sensor that is trained on; mast64 does in all of them.
OTHER_SENSORS: dict[str, LidarSensor] = {
    "64 beams": replace(TRAINED_ON, beams=64),
    "16 beams": replace(TRAINED_ON, beams=16),
    "other field of view": replace(TRAINED_ON, fov_down=-28.0, fov_up=2.0),
    "other intensity law": replace(
        TRAINED_ON, intensity_gain=0.55, intensity_offset=0.2, response=0.8
    ),
    "mast64": SENSORS["mast64"],
}
REAL, NEAR = "real scan", "real scan to 30 m"


class Remembered:
    """The scans of a data set, kept in memory: every epoch has the same.

    Args:
        dataset: whose scans.
    """

    def __init__(self, dataset: ScanDataset) -> None:
        self.classes, self.colors = dataset.classes, dataset.colors
        self.ignore_index = dataset.ignore_index
        self.scans = [dataset[index] for index in range(len(dataset))]

    def set_epoch(self, epoch: int) -> None:
        """Stay as it is."""

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, index: int) -> Scan:
        return self.scans[index]


# The cells of one seed follow each other: what they are trained on, and what validates them.
@lru_cache(maxsize=2)
def remembered(make: Callable[[int, int], ScanDataset], scans: int, seed: int) -> Remembered:
    """Return a number of scans of a seed, the same object as before for the same cells."""
    return Remembered(make(scans, seed))


def real_scan(classes: Sequence[str], reach: float = np.inf) -> Scan:
    """Return the scan of SemanticKITTI in $GEONORM_DATA with the labels of the streets.

    Args:
        classes: of the streets; points of other classes have no label.
        reach: metres from the sensor within which points are.

    Raises:
        ValueError: $GEONORM_DATA is not set, or has no such scan.
    """
    if "GEONORM_DATA" not in os.environ:
        raise ValueError(
            "GEONORM_DATA is not set; expected a folder with semantickitti/sequences/00, which "
            "holds the real scan that networks are judged on"
        )
    real = SemanticKITTI(Path(os.environ["GEONORM_DATA"]) / "semantickitti", split=["00"])
    scan = real[0]
    ids = [classes.index(name) if name in classes else IGNORE_INDEX for name in real.classes]
    table = np.full(IGNORE_INDEX + 1, IGNORE_INDEX, dtype=np.int64)
    table[: len(ids)] = ids
    near = np.linalg.norm(scan.points, axis=1) <= reach
    return replace(scan, labels=table[scan.labels]).take(near)


class MissingBeams(ScanTransform):
    """Leave out up to half of the sensor's rings, drawn evenly."""

    def __call__(self, scan: Scan, rng: np.random.Generator) -> Scan:
        beams = TRAINED_ON.beams
        missing = rng.choice(beams, rng.integers(beams // 2 + 1), replace=False)
        return scan.take(~np.isin(rings(scan, beams), missing))


class InputModule(SegmentationModule):
    """A module whose network has any norm of its input.

    Args:
        first: that norm; None for none.
        classes: names of the classes.
        options: of `SegmentationModule`.
    """

    def __init__(self, first: InputNorm | None, classes: list[str], **options: Any) -> None:
        super().__init__(**options)
        self.input_norm = first
        self._build(classes, None, CHANNELS, 1)


def _input_norm(cell: Cell) -> InputNorm | None:
    if cell.rival == "intensity":
        return {CHANNELS - 1: partial(InstanceNorm, affine=False)}
    if cell.rival == "standardized":
        return partial(BatchNorm, affine=False)
    return InstanceNorm if cell.place in ON_INPUT else None


@dataclass(frozen=True)
class Streets:
    """How a cell of streets is trained and judged; smaller numbers make a quick try.

    Args:
        steps: of the training.
        batch: scans in a step.
        scans: to train on.
        tested, validated: scans to judge networks and learning rates on.
        network: name of the MinkUNet.
        voxel: edge of a voxel in metres.
        lr: the base learning rate.
        corruptions: that networks are judged on, beside other sensors and the real scan.
    """

    steps: int = 300
    batch: int = 2
    scans: int = 300
    tested: int = 16
    validated: int = 12
    name: str = "MinkUNetSlim"
    voxel: float = 0.3
    lr: float = 6e-3
    corruptions: tuple[Corruption, ...] = get_args(Corruption)

    @cached_property
    def _streets(self) -> Remembered:
        return Remembered(SyntheticStreets(self.tested, TEST_SEED, TRAINED_ON))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return SyntheticStreets.classes

    def module(self, cell: Cell, lr: float) -> SegmentationModule:
        """Return the module of a cell, before it is trained."""
        module = InputModule(
            _input_norm(cell), [*self.classes], name=self.name, norm=norm_of(cell),
            optim=Optimization(lr=lr, warmup=0.1),
        )  # fmt: skip
        if cell.rival == "mixstyle":
            mix_styles_after(module.network, ("block1", "block2"))
        return module

    def data(self, cell: Cell) -> ScanData:
        """Return what a cell is trained on."""
        seed = TRAINING_SEED + cell.seed
        variant = VARIANTS[cell.variant]
        scans = partial(remembered, variant.scans, self.scans * variant.more, seed)
        changes: list[ScanTransform] = [*variant.changes]
        if cell.rival == "augmented":
            changes += [RandomIntensity(0.5, 1.5, 0.2), MissingBeams()]
        return ScanData(
            scans, scans, augment=changes,
            voxel_size=self.voxel_of(cell), batch_size=self.batch, num_workers=0, seed=cell.seed,
        )  # fmt: skip

    def network(self, cell: Cell, module: SegmentationModule) -> Network:
        """Return a trained module as what is judged."""
        logits_of = partial(self._logits, voxel=self.voxel_of(cell))
        if cell.rival in AT_TEST:
            return Adapted(
                cell.rival, module.network, logits_of, list, lambda each: each.argmax(1).numpy(),
                self.batch,
            )  # fmt: skip
        beside = []
        if cell.norm == BROKEN:
            beside = [self._streets[item % self.tested] for item in range(COMPANIONS)]

        def predict(samples: Sequence[Scan], item: int, scan: Scan) -> np.ndarray:
            with torch.inference_mode():
                logits = logits_of(module.network, [scan, *beside])[0]
            classes: np.ndarray = logits.argmax(1).numpy()
            return classes

        return predict

    def _logits(self, network: Any, scans: Sequence[Scan], *, voxel: float) -> list[Tensor]:
        """Return the logits of the points of each scan."""
        batch = collate_scans(scans, voxel_size=voxel)
        logits = voxel_logits(network, batch)[batch.inverse]
        return list(logits.split([len(scan) for scan in scans]))

    def steps_of(self, cell: Cell) -> int:
        """Return the steps of a cell's training."""
        return self.steps * VARIANTS[cell.variant].longer

    def voxel_of(self, cell: Cell) -> float:
        """Return the edge of a cell's voxels in metres."""
        return self.voxel / VARIANTS[cell.variant].finer

    def validation(self, cell: Cell, network: Network) -> float:
        """Return the mIoU on the validation streets."""
        scans = remembered(VARIANTS[cell.variant].validated, self.validated, VALIDATION_SEED)
        samples = Samples({CLEAN: Test((0,), lambda item, _: scans[item])}, self.validated)
        return self._judged(samples, network)[0][CLEAN]

    def scores(self, network: Network) -> dict[str, float]:
        """Return the mIoU of every test, and the IoU of each class of the real scan."""
        scores, counts = self._judged(self._tests, network)
        each = class_iou(torch.from_numpy(counts[REAL])).tolist()
        own = {f"{REAL}: {name}": iou for name, iou in zip(self.classes, each, strict=True)}
        return scores | {name: iou for name, iou in own.items() if not np.isnan(iou)}

    def _judged(
        self, samples: Samples, network: Network
    ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        kinds = len(self.classes)
        empty = np.zeros((kinds, kinds), dtype=np.int64)
        return judge(EveryTest(samples, ScanTask([], self._streets), network, empty))

    @cached_property
    def _tests(self) -> Samples:
        streets = self._streets
        corrupting = ScanTask([], streets, TRAINED_ON.beams)
        tests = {CLEAN: Test((0,), lambda item, _: streets[item])}
        for name, sensor in OTHER_SENSORS.items():
            seen = SyntheticStreets(self.tested, TEST_SEED, sensor)
            tests[name] = Test((0,), lambda item, _, seen=seen: seen[item])
        for name, reach in ((REAL, np.inf), (NEAR, 30.0)):
            scan = real_scan(self.classes, reach)
            tests[name] = Test((0,), lambda item, _, scan=scan: None if item else scan)
        for name in self.corruptions:
            def changed(item: int, level: int, name: str = name) -> Scan:
                return corrupting.corrupt(streets[item], item, name, level)

            tests[name] = Test(LEVELS[levels(name)], changed)
        return Samples(tests, self.tested)
