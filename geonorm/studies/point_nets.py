"""Small networks that label the points and voxels of scans, their loss and their score."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from geonorm.norms.registry import Build

if TYPE_CHECKING:
    from geonorm.datasets.voxelize import ScanBatch

IGNORED = 255  # the label of what has none


class PointNet(nn.Module):
    """Classify each point by itself and by the maximum over its scan (Qi et al., 2017).

    No norm follows where the maximum joins in: it is one vector for a whole scan, which an instance
    norm would take out again.

    Args:
        norm: builds the norms for a number of channels.
        classes: how many.

    Shape:
        (B, 4, N) to (B, classes, N)
    """

    def __init__(self, norm: Build, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inner, outer in ((4, 32), (32, 64), (64, 64)):
            layers += [nn.Conv1d(inner, outer, 1), norm(outer), nn.ReLU()]
        self.local = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Conv1d(128, 64, 1), nn.ReLU(), nn.Conv1d(64, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of each point."""
        local = self.local(x)
        scan = local.amax(2, keepdim=True).expand_as(local)
        scores: Tensor = self.head(torch.cat([local, scan], 1))
        return scores


@torch.no_grad()
def mean_iou(model: nn.Module, data: TensorDataset) -> float:
    """Return the mean over the classes that occur of intersection over union."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    from geonorm.training.segmentation.scores import class_iou

    features, labels = data.tensors
    scores = model.eval()(features)
    matrix = multiclass_confusion_matrix(scores.argmax(1), labels, scores.shape[1])
    return float(class_iou(matrix).nanmean())


def small_minkunet(inputs: int, outputs: int, norm: Any, width: int = 32) -> nn.Module:
    """Return a MinkUNet14A of few channels.

    Args:
        inputs: features of a voxel.
        outputs: numbers for each voxel.
        norm: as of MinkUNet.
        width: channels of all stages but the first, which has 16.
    """
    from geonorm.models import MinkUNet14A

    class Small(MinkUNet14A):
        PLANES = (16, width, width, width, width, width, width, width)

    return Small(inputs, outputs, norm=norm)


def of_voxels(model: nn.Module, features: Tensor, coordinates: Tensor) -> Tensor:
    """Return what a sparse network makes of the features of voxels, (M, outputs)."""
    import MinkowskiEngine as ME

    out: Tensor = model(ME.SparseTensor(features, coordinates)).F
    return out


def voxel_loss(model: nn.Module, batch: "ScanBatch") -> Tensor:
    """Return the mean cross entropy of a network's scores of voxels."""
    scores = of_voxels(model, batch.features, batch.coordinates)
    return F.cross_entropy(scores, batch.labels, ignore_index=IGNORED)


@torch.no_grad()
def voxel_iou(model: nn.Module, batches: "Iterable[ScanBatch]", classes: int) -> float:
    """Return the mean IoU over the points of all batches, each with the label of its voxel."""
    from torchmetrics.classification import MulticlassJaccardIndex

    index = MulticlassJaccardIndex(classes, ignore_index=IGNORED)
    for batch in batches:
        found = of_voxels(model, batch.features, batch.coordinates).argmax(1)
        index.update(found[batch.inverse], batch.point_labels)
    return float(index.compute())
