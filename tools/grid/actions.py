"""Actions: a small 3D-ResNet trained on drawn films, judged on others and on corrupted ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from geonorm import SpatioTemporalInstanceNorm
from geonorm.datasets import ClipDataset, SyntheticActions
from geonorm.datasets.clip_corruptions import Corruption
from geonorm.datasets.synthetic.action_drawing import MOTIONS
from geonorm.norms.registry import Build
from geonorm.training.action.data import ClipData, ClipFormat, clips_of
from geonorm.training.action.module import ActionModule
from geonorm.training.optimization import Optimization
from geonorm.training.shift.clips import ClipTask
from geonorm.training.shift.evaluate import CLEAN
from grid.cells import AT_TEST, BROKEN, COMPANIONS, ON_INPUT, Cell, norm_of
from grid.rivals import Adapted, mix_styles_after, without_strides
from grid.tests import LEVELS, EveryTest, Network, Samples, Test, judge

# The films that networks and learning rates are judged on; the seeds of cells are of weights, order
# and clips alone, as films take long to draw.
TEST_SEED, VALIDATION_SEED = 0, 1

CLIP = ClipFormat(length=8, step=2, size=44, crop=40)


class Differences(nn.Module):
    """Differences of each frame from the one before it, twice as large; the first one's are 0.

    Neither batch nor instance norm learns these motions from frames in some minutes. Differences
    are linear, so that a gain of the clip stays one, and are therefore no norm.
    """

    def forward(self, clip: Tensor) -> Tensor:
        """Return differences along T, (B, C, T, H, W) to the same."""
        return 2 * torch.diff(clip, dim=2, prepend=clip[:, :, :1])


def _input(channels: int, norm: bool) -> nn.Module:
    if norm:
        return nn.Sequential(SpatioTemporalInstanceNorm(channels, affine=False), Differences())
    return Differences()


class InputModule(ActionModule):
    """A module whose network is given its input by a module of its own.

    Args:
        first: builds what comes first, given the number of channels.
        classes: names of the classes.
        options: of `ActionModule`.
    """

    def __init__(self, first: Build, classes: list[str], **options: Any) -> None:
        super().__init__(**options)
        self.input_norm = first
        self._build(classes, None)


def _logits(network: nn.Module, clips: Sequence[Tensor]) -> list[Tensor]:
    """Return the scores of each clip, (1, K)."""
    batch = torch.cat([*clips]).contiguous(memory_format=torch.channels_last_3d)
    return list(network(batch).split(1))


@dataclass(frozen=True)
class Actions:
    """How a cell of actions is trained and judged; smaller numbers make a quick try.

    Args:
        steps: of the training.
        batch: clips in a step.
        films: to train on.
        tested, validated: clips to judge networks and learning rates on.
        name: of the network.
        clip: what a clip is.
        lr: the base learning rate.
        corruptions: that networks are judged on.
    """

    steps: int = 400
    batch: int = 16
    films: int = 2400
    tested: int = 60
    validated: int = 120
    name: str = "resnet3d_slim"
    clip: ClipFormat = CLIP
    lr: float = 2e-3
    corruptions: tuple[Corruption, ...] = get_args(Corruption)

    def module(self, cell: Cell, lr: float) -> ActionModule:
        """Return the module of a cell, before it is trained."""
        module = InputModule(
            partial(_input, norm=cell.place in ON_INPUT), [*MOTIONS], name=self.name,
            norm=norm_of(cell), optim=Optimization(lr=lr, warmup=0.1), channels_last=True,
        )  # fmt: skip
        if cell.rival == "mixstyle":
            mix_styles_after(module.model, ("layer1", "layer2"))
        if cell.rival == "unstrided":
            without_strides(module.model, ("layer3", "layer4"))
        return module

    def data(self, cell: Cell) -> ClipData:
        """Return what a cell is trained on."""
        films = partial(SyntheticActions, "train", num_videos=self.films)
        clip = replace(self.clip, jitter=0.8) if cell.rival == "augmented" else self.clip
        return ClipData(films, films, clip=clip, batch_size=self.batch, num_workers=0,
                        seed=cell.seed)  # fmt: skip

    def network(self, cell: Cell, module: ActionModule) -> Network:
        """Return a trained module as what is judged."""
        if cell.rival in AT_TEST:
            return Adapted(
                cell.rival, module.model, _logits, self._inputs, lambda each: each, self.batch
            )
        beside = []
        if cell.norm == BROKEN:
            clips = self._clips(self.tested, TEST_SEED)
            beside = [clips[item].video[None] for item in range(COMPANIONS)]

        def predict(samples: Sequence[Any], item: int, clip: Tensor) -> Tensor:
            return _logits(module.model, [clip, *beside])[0]

        return predict

    def _inputs(self, samples: Sequence[Any]) -> list[Tensor | None]:
        """Return the clips of a test's samples as a network is given them."""
        change = self._clips(self.tested, TEST_SEED).transform  # draws nothing in a test
        return [None if sample.video is None else change(sample.video, (0, 0, sample.item))[None]
                for sample in samples]  # fmt: skip

    def _clips(self, films: int, seed: int) -> ClipDataset:
        return clips_of(SyntheticActions("val", num_videos=films, seed=seed), self.clip)

    def steps_of(self, cell: Cell) -> int:
        """Return the steps of a cell's training."""
        return self.steps

    def validation(self, cell: Cell, network: Network) -> float:
        """Return the share of the validation clips that is right."""
        return self._judged(*self._validated, network)[CLEAN]

    def scores(self, network: Network) -> dict[str, float]:
        """Return the share that is right in every test."""
        return self._judged(*self._tests, network)

    def _judged(self, task: ClipTask, samples: Samples, network: Network) -> dict[str, float]:
        return judge(EveryTest(samples, task, network, np.zeros(2, dtype=np.int64)))[0]

    @cached_property
    def _validated(self) -> tuple[ClipTask, Samples]:
        task = ClipTask([], self._clips(self.validated, VALIDATION_SEED))
        clean = Test((0,), lambda item, _: task.read(item))
        return task, Samples({CLEAN: clean}, self.validated)

    @cached_property
    def _tests(self) -> tuple[ClipTask, Samples]:
        task = ClipTask([], self._clips(self.tested, TEST_SEED))
        samples = Samples({CLEAN: Test((0,), lambda item, _: task.read(item))}, self.tested)

        def changed(item: int, level: int, name: str) -> Any:
            return task.corrupt(samples(CLEAN, 0)[item], item, name, level)

        samples.tests |= {
            name: Test(LEVELS[task.levels(name)], partial(changed, name=name))
            for name in self.corruptions
        }
        return task, samples
