"""The small networks of the studies of scans: their channels and their score of voxels."""

import pytest
import torch

from geonorm import InstanceNorm
from geonorm.datasets import Scan, SyntheticStreets
from geonorm.datasets.voxelize import collate_scans
from geonorm.studies.point_nets import PointNet, of_voxels, small_minkunet, voxel_iou, voxel_loss


@pytest.fixture
def street() -> Scan:
    return SyntheticStreets(1, seed=5)[0]




def test_minkunet_has_the_width_that_is_asked_for(street: Scan) -> None:
    batch = collate_scans([street], 0.8)
    for width in (8, 24):
        net = small_minkunet(4, 11, "instance", width)
        norms = {m.num_features for m in net.modules() if isinstance(m, InstanceNorm)}
        assert norms == {16, 32, width}  # 32 are those of the stem
        assert of_voxels(net, batch.features, batch.coordinates).shape == (len(batch.labels), 11)


def test_scores_of_voxels_by_hand(street: Scan) -> None:
    """Voxels of two classes and one without a label, whose points are counted."""
    batch = collate_scans([street], 4.0)
    labels = torch.arange(len(batch.labels)) % 2
    labels[0] = 255
    points = labels[batch.inverse]
    features = torch.nn.functional.one_hot(labels.where(labels < 2, 0), 3).float()
    ours = batch._replace(labels=labels, point_labels=points, features=features)
    assert voxel_iou(torch.nn.Identity(), [ours], 3) == 1.0
    features[-1] = features[-2]  # the last voxel is taken for the class of the one before
    wrong = int((batch.inverse == len(labels) - 1).sum())
    counts = torch.bincount(points[points < 2], minlength=2)
    own, other = int(labels[-1]), int(labels[-2])
    expected = ((counts[own] - wrong) / counts[own]
                + counts[other] / (counts[other] + wrong)) / 2  # fmt: skip
    assert voxel_iou(torch.nn.Identity(), [ours], 3) == pytest.approx(float(expected))
    scores = torch.nn.functional.cross_entropy(features[1:], labels[1:])
    assert float(voxel_loss(torch.nn.Identity(), ours)) == pytest.approx(float(scores))


def test_a_point_net_sees_the_maximum_over_its_scan() -> None:
    torch.manual_seed(0)
    net = PointNet(InstanceNorm, 5).eval()
    x = torch.randn(2, 4, 9)
    out = net(x)
    assert out.shape == (2, 5, 9)
    moved = x.clone()
    moved[0, :, 0] += 30  # a point far off
    assert not torch.allclose(net(moved)[0, :, 1:], out[0, :, 1:], atol=1e-3)
    torch.testing.assert_close(net(moved)[1], out[1])
