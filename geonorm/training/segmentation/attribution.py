"""What of a scan's features the scores of its points came from."""

import torch
from torch import Tensor

from geonorm.attribution import Attribution, integrated_gradients
from geonorm.datasets.voxelize import ScanBatch
from geonorm.training.segmentation.module import SegmentationModule
from geonorm.training.segmentation.networks import PointMLP


def attribution(
    module: SegmentationModule, batch: ScanBatch, target: int | None = None
) -> Attribution:
    """Return what each feature of each point of one scan added to the scores, (P, C).

    The score is the mean over the points of the score of the class that is predicted for each, or
    of those points alone that are predicted as a target class (as captum's tutorial on segmentation
    has it). The baseline has the scan's mean of each feature at every point: what is left of the
    scan there is its shape.

    Args:
        module: the network.
        batch: of one scan, as `collate_scans` makes it.
        target: number of a class.

    Raises:
        ValueError: no point is predicted as the target.
    """
    batch = module.transfer_batch_to_device(batch, module.device, 0)
    counts = torch.bincount(batch.inverse, minlength=len(batch.coordinates))[:, None]

    def logits(features: Tensor) -> Tensor:
        """Return the scores of each point, (K, P, classes), of the scan with K features."""
        copies, _, channels = features.shape
        sums = features.new_zeros(copies, len(counts), channels)
        voxels = sums.index_add(1, batch.inverse, features) / counts
        coordinates = batch.coordinates.repeat(copies, 1)
        coordinates[:, 0] = torch.arange(copies).repeat_interleave(len(counts))
        rows: Tensor = module._rows(batch._replace(
            features=voxels.flatten(0, 1), coordinates=coordinates, names=batch.names * copies,
            point_features=features.flatten(0, 1), domains=batch.domains * copies,
        ))[0].unflatten(0, (copies, -1))  # fmt: skip
        return rows if isinstance(module.network, PointMLP) else rows[:, batch.inverse]

    x = batch.point_features
    with torch.no_grad():
        predicted = logits(x[None])[0].argmax(dim=1)
    chosen = torch.ones_like(predicted, dtype=torch.bool) if target is None else predicted == target
    if not chosen.any():
        raise ValueError(
            f"no point of {batch.names[0]} is predicted as {module.classes[target or 0]}: "
            "choose another class"
        )
    places = predicted[chosen]

    def score(features: Tensor) -> Tensor:
        scores = logits(features)[:, chosen]
        return scores[:, torch.arange(len(places)), places].mean(dim=1)

    return integrated_gradients(score, x, x.mean(dim=0).expand_as(x).contiguous())
