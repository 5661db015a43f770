"""The LightningModule that `geonorm train-action` trains."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn import functional

from geonorm import SpatioTemporalInstanceNorm
from geonorm.models.video_resnet import Padding
from geonorm.recompute import recompute_activations
from geonorm.training.action.data import ClipBatch
from geonorm.training.action.mixing import ClipMixing, check_mixing
from geonorm.training.action.networks import build, rates_by_depth
from geonorm.training.action.report import ActionReport, FailedFiles
from geonorm.training.action.scores import VideoResult, VideoScores
from geonorm.training.norm_option import norm_in_words, with_factories
from geonorm.training.optimization import Optimization


class ActionModule(LightningModule):
    """A network that gives a clip a class; a video's scores are the mean over its clips.

    Args:
        name: network: r3d_18, mc3_18, r2plus1d_18, or Hara's resnet3d_10, _18, _34, _50, ...;
            resnet3d_slim is resnet3d_10 at half its width.
        norm: norm of the network: a name, or a mapping from stage to name.
        input_norm: axes of an instance norm of the input, such as "T", which takes out what stands
            still, "HW", flicker, or "THW", a clip's light and contrast; none by default.
        input_eps: what that norm adds to the variance of normalized colours: differences well below
            its root, such as a codec's noise, stay small.
        optim: optimizer and schedule.
        weights: a file of weights to go on from, or the name of torchvision's for this network.
        backbone_lr_factor: learning rate of all but the last layer, as a part of the last's.
        layer_decay: each stage's learning rate as a part of the next one's: layer 4 learns at this
            part of the last layer's, the stem at its fifth power.
        mixup: parameter of the Beta distribution by which mixup weighs pairs of clips; 0 for none.
        cutmix: likewise of CutMix, which takes turns with mixup where there are both.
        label_smoothing: part of each label that is spread over all classes, in the loss.
        channels_last: keep the channels of each position side by side in memory, which is faster
            on processors for small clips; the results are the same but for rounding.
        compile: mode of torch.compile for the network, which sees clips of one shape while it
            trains; "reduce-overhead" runs it in CUDA graphs; "no" leaves it as it is.
        padding_mode: what convolutions see beyond the edge of a clip: "replicate" repeats the edge,
            since zeros let a clip's brightness pass its instance norms.
        recompute: keep about half of the activations while training, the outputs of instance norms
            being computed again in backward (`geonorm.recompute`); without effect where compiled.
        classes: names of the classes; by default those of the data.
    """

    monitor = "val/top1"
    num_pictures = 8
    # What the norm "instance" builds, given the number of channels.
    instance_norm: Callable[[int], torch.nn.Module] = SpatioTemporalInstanceNorm

    def __init__(
        self,
        name: str = "r3d_18",
        norm: str | dict[str, str] = "instance",
        input_norm: str | None = None,
        input_eps: float = 0.03,
        optim: Optimization = Optimization(),  # noqa: B008  (frozen)
        weights: str | None = None,
        backbone_lr_factor: float = 1.0,
        layer_decay: float = 1.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        label_smoothing: float = 0.0,
        channels_last: bool = False,
        compile: Literal["no", "default", "reduce-overhead", "max-autotune"] = "no",
        padding_mode: Padding = "zeros",
        recompute: bool = False,
        classes: list[str] | None = None,
    ) -> None:
        super().__init__()
        if not backbone_lr_factor >= 0:
            raise ValueError(f"backbone_lr_factor must be at least 0; got {backbone_lr_factor}")
        if not 0 < layer_decay <= 1:
            raise ValueError(f"layer_decay must be a part in (0, 1]; got {layer_decay}")
        check_mixing(mixup, cutmix)
        self.save_hyperparameters()
        self.name, self.norm, self.optim, self.weights = name, norm, optim, weights
        self.backbone_lr_factor, self.label_smoothing = backbone_lr_factor, label_smoothing
        self.layer_decay, self.mixup, self.cutmix = layer_decay, mixup, cutmix
        self.memory_format = torch.channels_last_3d if channels_last else torch.contiguous_format
        self.input_norm: Callable[[int], torch.nn.Module] | None = None
        if input_norm is not None:
            self.input_norm = partial(
                SpatioTemporalInstanceNorm, eps=input_eps, affine=False, axes=input_norm
            )
            self.input_norm(3)  # refuses other axes before there is a network
        self.compile_mode, self.recompute = compile, recompute
        self.padding_mode = padding_mode
        # Named as load_checkpoint expects it, so that a run's checkpoint is a file of weights.
        self.model: torch.nn.Module | None = None
        self.results: list[VideoResult] = []
        if classes is not None:  # a checkpoint's own weights follow
            self._build(classes, None)

    def _build(self, classes: list[str], weights: str | None) -> None:
        """Make the network; its classes travel in the checkpoint, so that it is usable alone."""
        self.classes = classes
        self.hparams.update(classes=classes)
        norm = with_factories(self.norm, {"instance": self.instance_norm})
        network = build(
            self.name, norm, len(classes), weights, self.padding_mode, self.input_norm
        )
        self.model = network.to(memory_format=self.memory_format)
        if self.recompute:
            recompute_activations(self.model)
        if self.compile_mode != "no":  # in place, so that the names of the weights stay
            self.model.compile(mode=self.compile_mode)

    def network(self) -> torch.nn.Module:
        """Return the network.

        Raises:
            ValueError: there are no classes yet to build it for.
        """
        if self.model is None:
            raise ValueError(
                "expected classes, for which the network is built; got none. Give classes=[...], "
                "or train with data that name them"
            )
        return self.model

    @property
    def title(self) -> str:
        """A description of the network in a few words."""
        return f"{self.name}, {norm_in_words(self.norm)}"

    @staticmethod
    def reports(folder: Path, num_pictures: int) -> list[Callback]:
        """Return the callbacks that show and keep what this module gives."""
        return [ActionReport(folder, num_pictures), FailedFiles(folder)]

    def configure_model(self) -> None:
        """Build the network for the classes of the data, where there is none yet.

        Callbacks that keep a copy of the network, such as averages of its weights, call this before
        they copy it.
        """
        trainer: Any = self._trainer  # Lightning declares no `datamodule`
        if self.model is None and trainer is not None:
            self._build(trainer.datamodule.classes, self.weights)

    def setup(self, stage: str) -> None:
        """Build the network for the classes of the data, or check that it was built for them."""
        self.configure_model()
        trainer: Any = self.trainer
        data = trainer.datamodule
        if data.classes != self.classes:
            raise ValueError(
                f"the checkpoint knows the classes {self.classes}; the data have {data.classes}"
            )
        self.scores = [
            VideoScores(len(clips.videos), len(self.classes)) for clips in data.judged(stage)
        ]
        self.moved_along = torch.nn.ModuleList(self.scores)  # to the network's device

    def forward(self, video: Tensor) -> Tensor:
        """Return the scores of the classes; (B, 3, T, H, W) to (B, K)."""
        video = video.contiguous(memory_format=self.memory_format)
        scores: Tensor = self.network()(video)
        return scores

    def training_step(self, batch: ClipBatch, batch_index: int) -> Tensor:
        video, label = batch.video, batch.label
        if self.mixup or self.cutmix:
            trainer: Any = self.trainer
            key = (trainer.datamodule.seed, self.current_epoch, batch_index, trainer.global_rank)
            mixing = ClipMixing(len(self.classes), self.mixup, self.cutmix)
            video, label = mixing(video, label, key)
        loss = functional.cross_entropy(self(video), label, label_smoothing=self.label_smoothing)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.label))
        return loss

    def _evaluate(self, batch: ClipBatch, kind: int) -> Tensor:
        logits: Tensor = self(batch.video)
        self.scores[kind].update(logits, batch.label, batch.video_index)
        return logits

    def _conclude(self, stage: str) -> None:
        self.results = [scores.compute() for scores in self.scores]
        for scores in self.scores:
            scores.reset()
        result = self.results[0]
        self.log(f"{stage}/top1", result.top1, prog_bar=True)
        self.log_dict({
            f"{stage}/top5": result.top5,
            f"{stage}/clip_top1": result.clip_top1,
            f"{stage}/loss": result.loss,
        })  # fmt: skip

    def validation_step(
        self, batch: ClipBatch, batch_index: int, dataloader_idx: int = 0
    ) -> Tensor:
        return self._evaluate(batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        self._conclude("val")

    def test_step(self, batch: ClipBatch, batch_index: int, dataloader_idx: int = 0) -> Tensor:
        return self._evaluate(batch, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        self._conclude("test")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        if self.backbone_lr_factor == 1 and self.layer_decay == 1:
            return self.optim.configure(self)
        rates = rates_by_depth(self.network(), self.backbone_lr_factor, self.layer_decay)
        return self.optim.configure(self, rates)
