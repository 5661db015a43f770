"""Integrated gradients: by hand; complete on a real scan and clip; controls that fail."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from geonorm.attribution import Attribution, integrated_gradients

pytest.importorskip("captum", reason="pip install 'geonorm[train]'")


def ranks_agree(a, b):
    """Return the rank correlation of two maps."""
    ranks = [each.flatten().argsort().argsort().double() for each in (a, b)]
    return torch.corrcoef(torch.stack(ranks))[0, 1].item()


def trained(parameters, loss, steps=12, lr=1e-2):
    optimizer = torch.optim.Adam(parameters, lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def test_a_polynomial_by_hand():
    """x²y: along the diagonal from 0, x takes 2/3 of it and y 1/3."""
    x = torch.tensor([2.0, 3.0])
    found = integrated_gradients(lambda z: z[:, 0] ** 2 * z[:, 1], x, torch.zeros(2))
    torch.testing.assert_close(found.values, torch.tensor([8.0, 4.0]))
    assert (found.score, found.baseline_score, found.steps) == (12.0, 0.0, 16)
    assert found.gap < 1e-6


def test_the_gap_is_a_share_of_the_difference_unless_that_is_rounding():
    assert Attribution(torch.tensor([3.0, 1.0]), 6.0, 1.0, 16).gap == pytest.approx(0.2)
    assert Attribution(torch.tensor([-3.0]), -6.0, -1.0, 16).gap == pytest.approx(0.4)
    assert Attribution(torch.tensor([0.05]), -1000.0, -1000.0, 16).gap == pytest.approx(0.5)
    assert Attribution(torch.tensor([0.02]), 0.001, -1000.0, 16).gap == pytest.approx(1, rel=1e-3)
    assert Attribution(torch.tensor([0.0]), 0.0, 0.0, 16).gap == 0


def test_no_more_than_so_many_steps_go_through_the_network_together():
    sizes = []

    def score(z):
        sizes.append(len(z))
        return z.sum(1)

    for options, most in (({}, 1), ({"at_a_time": 5}, 5)):
        sizes.clear()
        integrated_gradients(score, torch.ones(2), torch.zeros(2), **options)
        assert max(sizes) == most


def test_steps_are_doubled_until_the_sum_is_the_difference():
    narrow = lambda z: torch.sigmoid(200 * (z[:, 0] - 0.35))  # noqa: E731
    once = integrated_gradients(narrow, torch.ones(1), torch.zeros(1), steps=16)
    assert once.gap > 0.05
    found = integrated_gradients(narrow, torch.ones(1), torch.zeros(1))
    assert found.gap <= 0.01
    assert found.steps == 64  # 16 and 32 miss it by more than a half
    assert integrated_gradients(narrow, torch.ones(1), torch.zeros(1), tolerance=2).steps == 16
    steep = lambda z: torch.sigmoid(1e6 * (z[:, 0] - 0.35))  # noqa: E731
    with pytest.warns(UserWarning, match=r"after 512 steps the attributions miss .* baseline"):
        integrated_gradients(steep, torch.ones(1), torch.zeros(1))


def test_what_is_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"shape of x, \(2,\); got \(3,\)"):
        integrated_gradients(lambda z: z.sum(1), torch.ones(2), torch.zeros(3))
    with pytest.raises(ValueError, match="steps must be at least 1; got 0"):
        integrated_gradients(lambda z: z.sum(1), torch.ones(2), torch.zeros(2), steps=0)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'geonorm\[train\]'"):
        integrated_gradients(lambda z: z.sum(1), torch.ones(2), torch.zeros(2))


def near(scan, metres):
    """Return every third point of a scan about the sensor."""
    kept = (np.abs(scan.points[:, :2]) < metres).all(axis=1) & (np.arange(len(scan)) % 3 == 0)
    return replace(
        scan, points=scan.points[kept], intensity=scan.intensity[kept], labels=None, kept=None
    )


def test_of_the_points_of_a_class_alone():
    pytest.importorskip("MinkowskiEngine")
    from geonorm.datasets import SyntheticStreets
    from geonorm.datasets.voxelize import collate_scans
    from geonorm.training.segmentation.attribution import attribution
    from geonorm.training.segmentation.module import SegmentationModule

    torch.manual_seed(3)
    module = SegmentationModule(name="PointMLP", classes=list("abcd")).eval()
    street = SyntheticStreets(num_scans=1)[0]
    batch = collate_scans([street.take(np.arange(0, len(street), 300))], voxel_size=0.5)
    x = batch.point_features
    with torch.no_grad():
        module.network[-1].bias -= module.network(x).mean(dim=0)  # so that several are predicted
        logits, mean = module.network(x), module.network(x.mean(dim=0, keepdim=True))[0]
    predicted = logits.argmax(dim=1)
    _, target, *_, last = sorted(predicted.unique().tolist())
    assert last > target
    ours = predicted == target
    assert 0 < ours.sum() < len(x) - 1
    found = attribution(module, batch, target)
    assert (found.values[~ours] == 0).all()
    whole = (logits[ours, target] - mean[target]).mean().item()
    assert found.values.sum().item() == pytest.approx(whole, rel=0.02)


def test_the_views_of_a_video_by_a_network_whose_share_is_known():
    """Of a linear network each element adds its weight times what the blur has taken from it."""
    from geonorm.training.action.attribution import blurred, of_views

    clips, weights = torch.rand(2, 3, 2, 8, 10), torch.rand(3, 2, 8, 10)

    def network(several):
        score = (several * weights).sum(dim=(1, 2, 3, 4))
        return torch.stack([score, -2 * score], dim=1)

    values, gaps = of_views(network, clips, 1)
    expected = [-2 * (weights * (clip - blurred(clip))).sum(dim=0) for clip in clips]
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert len(gaps) == 2
    assert max(gaps) < 1e-3


def test_a_real_scan(data_root):
    pytest.importorskip("MinkowskiEngine")
    from geonorm.datasets import SyntheticStreets, read_scan
    from geonorm.datasets.voxelize import collate_scans
    from geonorm.training.segmentation.attribution import attribution
    from geonorm.training.segmentation.module import SegmentationModule

    def network(seed):
        torch.manual_seed(seed)
        classes, colors = [*streets.classes], streets.colors.tolist()
        return SegmentationModule(name="MinkUNet14A", classes=classes, colors=colors)

    streets = SyntheticStreets(num_scans=1)
    street = collate_scans([streets[0]], voxel_size=1.2)
    file = data_root / "semantickitti/sequences/00/velodyne/000000.bin"
    batch = collate_scans([near(read_scan(file), 5)], voxel_size=0.4)
    module, fresh = network(0), network(1)
    trained(module.parameters(), lambda: module._loss(module._rows(street), street))
    found = attribution(module.eval(), batch)
    assert found.values.shape == (len(batch.points), 4)

    def score(features):
        """Return the score with other features of the points, apart from the code under test."""
        voxels = torch.zeros(len(batch.coordinates), 4).index_add(0, batch.inverse, features)
        voxels = voxels / torch.bincount(batch.inverse)[:, None]
        logits = module._rows(batch._replace(features=voxels))[0][batch.inverse]
        return logits.gather(1, classes[:, None]).mean()

    x = batch.point_features
    classes = module(batch)
    with torch.no_grad():
        whole = (score(x) - score(x.mean(dim=0).expand_as(x))).item()
    assert found.values.sum().item() == pytest.approx(whole, rel=0.01)
    assert abs(whole) > 0.05

    control = integrated_gradients(
        lambda several: score(several[0])[None], x, torch.zeros_like(x), steps=found.steps
    )
    assert control.gap > 0.01  # the norms take the factor out: all happens next to zero
    other = attribution(fresh.eval(), batch)
    assert abs(ranks_agree(found.values.sum(1), other.values.sum(1))) < 0.5

    missing = next(each for each in range(11) if not (classes == each).any())
    with pytest.raises(ValueError, match=r"no point of .* is predicted as"):
        attribution(module, batch, missing)


@pytest.mark.slow
def test_a_real_clip(data_root):
    from geonorm.datasets.clips import ClipDataset
    from geonorm.datasets.video_lists import VideoSet
    from geonorm.datasets.video_transforms import ClipTransform
    from geonorm.models.video_resnet import resnet3d
    from geonorm.training.action.attribution import attribution, blurred

    def network(seed):
        torch.manual_seed(seed)
        norm = {"default": "instance", "layer4": "none"}
        return resnet3d(10, 3, norm=norm, width=16)

    files = sorted((data_root / "ucf101").glob("*/*.avi"))
    videos = VideoSet([(file, number) for number, file in enumerate(files)], ("a", "b", "c"))
    dataset = ClipDataset(videos, length=8, step=4, sampling="dense", size=44,
                          transform=ClipTransform(40, train=False))  # fmt: skip
    clips = torch.stack([dataset[number].video for number in range(3)])
    model, fresh = network(0), network(1).eval()
    loss = torch.nn.functional.cross_entropy
    trained(model.parameters(), lambda: loss(model(clips), torch.arange(3)), lr=3e-3)
    model.eval()
    found = attribution(model, clips[0], 0)
    assert found.values.shape == clips[0].shape
    with torch.no_grad():
        scores = model(torch.stack([clips[0], blurred(clips[0])]))[:, 0]
    whole = (scores[0] - scores[1]).item()
    assert found.values.sum().item() == pytest.approx(whole, rel=0.01)
    assert abs(whole) > 0.05
    control = integrated_gradients(
        lambda clip: model(clip)[:, 0], clips[0], torch.zeros_like(clips[0]), steps=found.steps
    )
    assert control.gap > 0.01
    other = attribution(fresh, clips[0], 0)
    assert abs(ranks_agree(found.values, other.values)) < 0.5
