"""The LightningModule that `geonorm train-seg` trains."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from geonorm import DomainBatchNorm, DomainInstanceNorm, SparseInstanceNorm
from geonorm.datasets.label_map import in_words
from geonorm.datasets.scan import IGNORE_INDEX
from geonorm.datasets.voxelize import ScanBatch
from geonorm.losses import inverse_log_weights, lovasz_softmax
from geonorm.models.minkunet import MinkUNet
from geonorm.models.norm import InputNorm
from geonorm.recompute import recompute_activations
from geonorm.training.norm_option import norm_in_words, with_factories
from geonorm.training.optimization import Optimization
from geonorm.training.segmentation.networks import (
    CHANNELS,
    PointMLP,
    build,
    check_device,
    check_precision,
    domains_told,
    usable_accelerator,
    voxel_logits,
)
from geonorm.training.segmentation.report import SegmentationReport
from geonorm.training.segmentation.scores import class_iou, scan_mean_loss
from geonorm.training.segmentation.submissions import SubmissionWriter
from geonorm.training.segmentation.voting import mean_scores

Loss = Literal["cross_entropy", "lovasz", "cross_entropy+lovasz"]


class SegmentationModule(LightningModule):
    """A network that gives each point of a scan a class; judged over points, trained on voxels.

    Args:
        name: network: a MinkUNet variant, or PointMLP, which sees each point alone.
        norm: norm of MinkUNet: a name, or a mapping from stage to name; beside the usual names
            `domain-instance` and `domain-batch`, which keep the data's domains apart.
        optim: optimizer and schedule.
        loss: the mean cross entropy, the Lovász-softmax loss, which stands for the IoU
            (`geonorm.losses.lovasz_softmax`), or their sum; each the mean over scans.
        class_weights: weight of each class in the cross entropy, or `inverse_log`, by which they
            follow from the points in the training scans (`geonorm.losses.inverse_log_weights`);
            all alike by default.
        recompute: keep about half of the activations while training, the outputs of instance norms
            being computed again in backward (`geonorm.recompute`).
        classes: names of the classes; by default those of the data.
        colors: RGB of each class, 0 to 255; by default those of the data.
        in_channels: features of each voxel; by default those of the data.
        num_domains: domains that domain norms keep apart; by default those of the data.
        input_norm: norm of what MinkUNet is given, by name, such as `instance`, which takes a gain
            and an offset of each feature out of each scan; or a mapping from the number of a
            feature to a name, for this feature alone; none by default.
    """

    monitor = "val/miou"
    num_pictures = 2
    weights: Tensor | None  # of the classes
    # What the norm "instance" builds, given the number of channels.
    instance_norm: Callable[[int], torch.nn.Module] = SparseInstanceNorm

    def __init__(
        self,
        name: str = "MinkUNet14A",
        norm: str | dict[str, str] = "instance",
        optim: Optimization = Optimization(),  # noqa: B008  (frozen)
        loss: Loss = "cross_entropy",
        class_weights: list[float] | Literal["inverse_log"] | None = None,
        recompute: bool = False,
        classes: list[str] | None = None,
        colors: list[list[int]] | None = None,
        in_channels: int = CHANNELS,
        num_domains: int = 1,
        input_norm: str | dict[int, str] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.name, self.norm, self.optim, self.recompute = name, norm, optim, recompute
        self.input_norm: InputNorm | None = input_norm
        self.loss, self.class_weights = loss, class_weights
        if loss == "lovasz" and class_weights is not None:
            raise ValueError(
                "class_weights are those of the cross entropy, which loss 'lovasz' has no part of: "
                "leave them out, or take loss 'cross_entropy+lovasz'"
            )
        self.network: MinkUNet | PointMLP | None = None
        if classes is not None:
            self._build(classes, colors, in_channels, num_domains)

    def _build(
        self,
        classes: list[str],
        colors: list[list[int]] | None,
        in_channels: int,
        num_domains: int,
    ) -> None:
        """Make the network; its classes travel in the checkpoint, so that it is usable alone."""
        given = self.class_weights
        if isinstance(given, list) and len(given) != len(classes):
            raise ValueError(
                f"class_weights must be {len(classes)} numbers, one for each of {classes}; "
                f"got {len(given)}"
            )
        # Those that are counted travel in the checkpoint: nobody needs the training data again.
        self.register_buffer(
            "weights",
            torch.ones(len(classes)) if given == "inverse_log"
            else None if given is None else torch.tensor(given),
            persistent=given == "inverse_log",
        )  # fmt: skip
        self.classes, self.colors, self.in_channels = classes, colors, in_channels
        self.hparams.update(
            classes=classes, colors=colors, in_channels=in_channels, num_domains=num_domains
        )
        norm = with_factories(self.norm, {
            "instance": self.instance_norm,
            "domain-instance": partial(DomainInstanceNorm, num_domains=num_domains),
            "domain-batch": partial(DomainBatchNorm, num_domains=num_domains),
        })  # fmt: skip
        self.network = build(self.name, norm, len(classes), in_channels, self.input_norm)
        if self.recompute:
            recompute_activations(self.network)
        self.confusion, self.first_vote = (
            MulticlassConfusionMatrix(
                len(classes), ignore_index=IGNORE_INDEX, validate_args=False
            )
            for _ in range(2)
        )

    @property
    def title(self) -> str:
        """A description of the network in a few words."""
        return self.name if self.name == "PointMLP" else f"{self.name}, {norm_in_words(self.norm)}"

    @property
    def auto_accelerator(self) -> str:
        """The accelerator that the trainer uses for "auto" with this network."""
        return usable_accelerator(self.name)

    @staticmethod
    def reports(folder: Path, num_pictures: int) -> list[Callback]:
        """Return the callbacks that show and keep what this module gives."""
        return [SegmentationReport(folder, num_pictures), SubmissionWriter(folder)]

    def configure_model(self) -> None:
        """Build the network for the classes of the data, where there is none yet.

        Callbacks that keep a copy of the network, such as averages of its weights, call this before
        they copy it.
        """
        trainer: Any = self._trainer  # Lightning declares no `datamodule`
        if self.network is None and trainer is not None:
            data = trainer.datamodule
            self._build(data.classes, data.colors, data.in_channels, data.num_domains)

    def setup(self, stage: str) -> None:
        """Build the network for the classes of the data, or check that it was built for them."""
        self.configure_model()
        trainer: Any = self.trainer
        classes, in_channels = trainer.datamodule.classes, trainer.datamodule.in_channels
        if classes != self.classes:
            raise ValueError(
                f"the checkpoint knows the classes {in_words(self.classes)}; the data have "
                f"{in_words(classes)}"
            )
        if in_channels != self.in_channels:
            raise ValueError(
                f"the checkpoint takes {self.in_channels} features of each voxel; the data have "
                f"{in_channels}: give the --data.features that it was trained with"
            )
        if not isinstance(self.network, PointMLP):
            check_device(self.trainer.strategy.root_device)
            check_precision(str(self.trainer.precision))

    def on_fit_start(self) -> None:
        """Weigh the classes by the numbers of their points, unless a checkpoint brought weights."""
        if self.class_weights != "inverse_log" or self.weights is None or (self.weights != 1).any():
            return
        trainer: Any = self.trainer
        counts = trainer.datamodule.class_counts()
        self.weights.copy_(inverse_log_weights(counts))
        each = zip(self.classes, self.weights.tolist(), strict=True)
        words = ", ".join(f"{name} {weight:.2f}" for name, weight in each)
        self.print(f"Class weights from {int(counts.sum()):,} points: {words}")

    def _rows(self, batch: ScanBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, labels and scan of what the network sees, voxels or points."""
        if self.network is None:
            raise ValueError(
                "expected classes, for which the network is built; got none. Give classes=[...], "
                "or train with data that name them"
            )
        if isinstance(self.network, PointMLP):
            return self.network(batch.point_features), batch.point_labels, batch.point_batch
        with domains_told(self.network, batch):
            logits = voxel_logits(self.network, batch)
        return logits, batch.labels, batch.coordinates[:, 0].long()

    def _loss(self, rows: tuple[Tensor, Tensor, Tensor], batch: ScanBatch) -> Tensor:
        loss = torch.zeros((), device=self.device)
        if self.loss != "lovasz":
            loss = loss + scan_mean_loss(*rows, len(batch.names), self.weights)
        if self.loss != "cross_entropy":
            loss = loss + lovasz_softmax(*rows, len(batch.names))
        return loss

    def _classes_of_points(self, logits: Tensor, batch: ScanBatch) -> Tensor:
        classes = logits.argmax(dim=1)
        return classes if isinstance(self.network, PointMLP) else classes[batch.inverse]

    def _point_logits(self, batch: ScanBatch) -> Tensor:
        batch = self.transfer_batch_to_device(batch, self.device, 0)
        logits = self._rows(batch)[0]
        return logits if isinstance(self.network, PointMLP) else logits[batch.inverse]

    def scores(self, batch: ScanBatch) -> tuple[Tensor, Tensor | None]:
        """Return each point's mean softmax over the batch's views, and its class by the first vote.

        There is no second result where there is one vote.

        Shape:
            - result: (P, K) and (P,)
        """
        views = batch.views or [(0, batch, torch.arange(len(batch.points)))]
        return mean_scores(views, self._point_logits, len(batch.points))

    def forward(self, batch: ScanBatch) -> Tensor:
        """Return the class of every point of a batch, (P,)."""
        if batch.views is not None:
            return self.scores(batch)[0].argmax(dim=1)
        return self._classes_of_points(self._rows(batch)[0], batch)

    def training_step(self, batch: ScanBatch, batch_index: int) -> Tensor:
        loss = self._loss(self._rows(batch), batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.names))
        return loss

    def _evaluate(self, batch: ScanBatch, stage: str) -> Tensor:
        if batch.views is None:
            rows = self._rows(batch)
            predicted = self._classes_of_points(rows[0], batch)
        else:
            scores, by_first = self.scores(batch)
            logits = scores.clamp(min=torch.finfo(scores.dtype).tiny).log()
            rows = (logits, batch.point_labels, batch.point_batch)
            predicted = scores.argmax(dim=1)
            if by_first is not None:
                self.first_vote.update(by_first, batch.point_labels)
        loss = self._loss(rows, batch)
        self.confusion.update(predicted, batch.point_labels)
        self.log(f"{stage}/loss", loss, batch_size=len(batch.names), sync_dist=True)
        return predicted

    def _conclude(self, stage: str) -> None:
        self.matrix = self.confusion.compute()
        self.confusion.reset()
        iou = class_iou(self.matrix)
        self.log(f"{stage}/miou", iou.nanmean().float(), prog_bar=True)
        self.miou_first_vote: float | None = None
        if self.first_vote.update_called:
            self.miou_first_vote = class_iou(self.first_vote.compute()).nanmean().item()
            self.log(f"{stage}/miou_first_vote", self.miou_first_vote)
            self.first_vote.reset()
        per_class = zip(self.classes, iou, strict=True)
        self.log_dict({f"{stage}/iou/{name}": value.float() for name, value in per_class})

    def validation_step(self, batch: ScanBatch, batch_index: int) -> Tensor:
        return self._evaluate(batch, "val")

    def on_validation_epoch_end(self) -> None:
        self._conclude("val")

    def test_step(self, batch: ScanBatch, batch_index: int) -> Tensor:
        return self._evaluate(batch, "test")

    def on_test_epoch_end(self) -> None:
        self._conclude("test")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        return self.optim.configure(self)
