"""The intensity of one LiDAR in the style of another, and what segmentation gains from it."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from geonorm.datasets.scan import Scan
from geonorm.inputs import Rows
from geonorm.norms.batch_norm import BatchNorm
from geonorm.studies.point_nets import PointNet, mean_iou
from geonorm.studies.style_transfer import exchange
from geonorm.studies.training import cross_entropy, fit
from geonorm.style import StyleStatistics, style_statistics

POINTS, SCANS, TESTED, STEPS = 2048, 20, 16, 160
OWN, INTENSITY, OTHER = "own sensor", "other intensity", "other sensor"


@lru_cache(maxsize=32)
def scans(sensor: str, count: int, seed: int) -> list[Scan]:
    """Return built-in streets, `POINTS` points of each.

    Args:
        sensor: `OWN` has 32 beams; `INTENSITY` is the same with the gain, offset and response of
            `OTHER`, which has 64 beams of another range of angles.
        count: how many.
        seed: of the streets.
    """
    from geonorm.datasets.synthetic.lidar import SENSORS
    from geonorm.datasets.synthetic.streets import SyntheticStreets

    own, other = SENSORS["roof32"], SENSORS["mast64"]
    looks = {OWN: own, OTHER: other, INTENSITY: replace(
        own, intensity_gain=other.intensity_gain, intensity_offset=other.intensity_offset,
        response=other.response)}  # fmt: skip
    streets = SyntheticStreets(count, seed, looks[sensor])
    rng = np.random.default_rng(seed)
    return [scan.take(rng.choice(len(scan), POINTS)) for scan in map(streets.__getitem__,
                                                                     range(count))]  # fmt: skip


def intensities(chosen: list[Scan]) -> Rows:
    """Return the intensity of each point, (N, 1), and its scan."""
    lengths = torch.tensor([len(scan) for scan in chosen])
    rows = torch.from_numpy(np.concatenate([scan.intensity for scan in chosen]))[:, None]
    index = torch.arange(len(chosen)).repeat_interleave(lengths)
    return Rows(rows, index, num_instances=len(chosen))


def styled(own: Rows, style: StyleStatistics | Rows, norm: str = "instance") -> Tensor:
    """Return intensities in another style, (N, 1), clipped to [0, 1] as a sensor's are.

    Args:
        own: of some scans.
        style: of one scan or of as many.
        norm: as of `exchange`.
    """
    given: Tensor = exchange(own, style, norm).features
    return given.clamp(0, 1)


def apart(a: Tensor, b: Tensor) -> float:
    """Return the Wasserstein distance between the values of two tensors, in their unit."""
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(a.flatten().numpy(), b.flatten().numpy()))


def _inputs(chosen: list[Scan], intensity: Tensor) -> Tensor:
    """Return x, y, z, scaled, and intensity, (B, 4, N)."""
    from geonorm.datasets.voxelize import FEATURE_SCALE

    places = torch.from_numpy(np.stack([scan.points for scan in chosen]))
    scaled = places / torch.tensor(FEATURE_SCALE)
    return torch.cat([scaled, 2 * intensity.view(len(chosen), -1, 1)], 2).mT.contiguous()


def _labels(chosen: list[Scan]) -> Tensor:
    return torch.from_numpy(np.stack([scan.labels for scan in chosen if scan.labels is not None]))


def segmented(augmented: str, seed: int) -> dict[str, float]:
    """Train on one sensor and return the mIoU on it and on two others.

    Args:
        augmented: "as it is"; "other's style" gives every second scan the style of a scan of
            `INTENSITY` without its labels; "one style" gives all scans one style, tested ones too.
        seed: of everything drawn.
    """
    from geonorm.datasets.synthetic.streets import SyntheticStreets

    rng, classes = np.random.default_rng(seed), len(SyntheticStreets.classes)
    known = scans(OWN, SCANS, 700 + seed)
    others = style_statistics(intensities(scans(INTENSITY, SCANS, 800 + seed)))
    one = StyleStatistics(torch.full((1, 1), 0.4), torch.full((1, 1), 0.15))

    def seen(chosen: list[Scan], training: bool) -> Tensor:
        own = intensities(chosen)
        if augmented == "one style":
            return styled(own, one)
        if not training or augmented == "as it is":
            return own.features
        drawn = rng.integers(len(others.mean), size=len(chosen))
        given = styled(own, StyleStatistics(others.mean[drawn], others.std[drawn]))
        exchanged = torch.from_numpy(rng.random(len(chosen)) < 0.5)[own.batch_index]
        return torch.where(exchanged[:, None], given, own.features)

    def draw() -> tuple[Tensor, Tensor]:
        chosen = [known[i] for i in rng.choice(len(known), 4, replace=False)]
        return _inputs(chosen, seen(chosen, True)), _labels(chosen)

    model = fit(PointNet(BatchNorm, classes), draw, cross_entropy, steps=STEPS, rate=1e-2)
    values = {}
    for sensor in (OWN, INTENSITY, OTHER):
        tested = scans(sensor, TESTED, 900)
        data = TensorDataset(_inputs(tested, seen(tested, False)), _labels(tested))
        values[f"mIoU, {sensor}"] = mean_iou(model, data)
    return values


