"""Clients of a federated training that differ: LiDAR sensors and cameras."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from geonorm.norms.instance_norm import InstanceNorm
from geonorm.norms.registry import Build
from geonorm.studies.clips import drawn_clips
from geonorm.studies.point_nets import PointNet

POINTS, SCANS, CLASSES = 1024, 24, 11  # of a scan; of a client; of the streets
FRAMES, PIXELS, CLIPS = 6, 24, 160  # of a clip; clips of a client
DIRECTIONS = ("move left", "move right")


class Sensor(NamedTuple):
    """What a LiDAR makes of its returns, on top of one of the built-in sensors.

    Args:
        base: its name in `geonorm.datasets.synthetic.lidar.SENSORS`.
        gain, offset, response: of its intensities, as `LidarSensor` has them.
        beams, steps: rings, and rays of a ring; the base's own if 0.
    """

    base: str
    gain: float
    offset: float
    response: float
    beams: int = 0
    steps: int = 0


# Four clients, sensors that no client has, and what all have where nothing is shifted.
SENSORS = (
    Sensor("roof32", 1.0, 0.05, 0.5),
    Sensor("mast64", 0.55, 0.2, 0.8),
    Sensor("roof32", 0.4, 0.3, 1.0),
    Sensor("mast64", 1.4, 0.0, 0.35),
)
NEW_SENSORS = (Sensor("roof32", 0.25, 0.45, 0.65), Sensor("mast64", 0.9, 0.4, 0.6, 40, 360))
ALIKE = (SENSORS[0],) * len(SENSORS)


@lru_cache(maxsize=64)
def scans(sensor: Sensor, count: int, seed: int) -> TensorDataset:
    """Return the points of streets that a sensor sees, and their classes.

    Shape:
        float32 (count, 4, POINTS): x, y, z in tens of metres and intensity; int64 (count, POINTS)
    """
    from geonorm.datasets import SyntheticStreets
    from geonorm.datasets.synthetic.lidar import sensor_named

    base = sensor_named(sensor.base)
    lidar = replace(
        base, intensity_gain=sensor.gain, intensity_offset=sensor.offset, response=sensor.response,
        beams=sensor.beams or base.beams, azimuth_steps=sensor.steps or base.azimuth_steps,
    )  # fmt: skip
    streets = SyntheticStreets(count, seed, lidar)
    rng = np.random.default_rng(seed)
    features, labels = [], []
    for number in range(count):
        scan = streets[number]
        scan = scan.take(rng.permutation(len(scan))[:POINTS])
        features.append(np.column_stack([scan.points / 10, scan.feature("intensity")]).T)
        labels.append(np.asarray(scan.labels))
    return TensorDataset(torch.from_numpy(np.stack(features)), torch.from_numpy(np.stack(labels)))


def network() -> nn.Module:
    """Return the network of the built-in clients of tools/federated.py."""
    return PointNet(InstanceNorm, CLASSES)


def clients() -> dict[str, Callable[[], tuple[TensorDataset, TensorDataset]]]:
    """Return the built-in clients of tools/federated.py: sensors, each in streets of its own."""

    def read(number: int) -> tuple[TensorDataset, TensorDataset]:
        return scans(SENSORS[number], SCANS, number), scans(SENSORS[number], SCANS, 100 + number)

    return {f"{sensor.base}, gain {sensor.gain:g}": partial(read, number)
            for number, sensor in enumerate(SENSORS)}  # fmt: skip


class Camera(NamedTuple):
    """A camera: clip(gain · x ** gamma · cast + offset)."""

    gain: float
    offset: float
    gamma: float
    cast: tuple[float, float, float]


CAMERAS = (
    Camera(1.0, 0.0, 1.0, (1.0, 1.0, 1.0)),
    Camera(0.4, 0.1, 1.4, (1.0, 0.8, 0.6)),
    Camera(0.7, 0.3, 0.7, (0.6, 0.9, 1.0)),
    Camera(0.25, 0.0, 2.0, (0.9, 1.0, 0.7)),
)
NEW_CAMERAS = (Camera(0.5, 0.4, 1.2, (0.7, 1.0, 0.7)), Camera(0.3, 0.2, 0.8, (1.0, 0.6, 0.9)))


@lru_cache(maxsize=64)
def differences(camera: Camera, count: int, seed: int, left: float) -> TensorDataset:
    """Return differences of successive frames of clips that a camera films, and their classes.

    Args:
        camera: what films.
        count: clips.
        seed: of the clips.
        left: the share of clips in which a shape moves to the left; all others move to the right.

    Shape:
        float32 (count, 3, FRAMES - 1, PIXELS, PIXELS); int64 (count,), 0 is left
    """
    clips, labels = drawn_clips(2 * count, FRAMES, PIXELS, seed, DIRECTIONS)
    lefts = round(left * count)
    chosen = torch.cat([
        (labels == 0).nonzero()[:lefts, 0], (labels == 1).nonzero()[: count - lefts, 0]
    ])  # fmt: skip
    cast = torch.tensor(camera.cast).view(3, 1, 1, 1)
    filmed = (camera.gain * clips[chosen] ** camera.gamma * cast + camera.offset).clamp(0, 1)
    return TensorDataset(filmed.diff(dim=2), labels[chosen])


def motion_network(norm: Build) -> nn.Module:
    """Return a small network for differences of frames: two convolutions, norms, and a mean.

    Its edges are repeated: zeros let a clip's level through an instance norm.
    """
    layers: list[nn.Module] = []
    for inner, outer, stride in ((3, 16, (1, 2, 2)), (16, 32, 2)):
        layers += [nn.Conv3d(inner, outer, 3, stride, 1, padding_mode="replicate"),
                   norm(outer), nn.ReLU()]  # fmt: skip
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(),
                         nn.Linear(32, len(DIRECTIONS)))  # fmt: skip


def batches(data: TensorDataset, size: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return what draws a batch of different examples at random."""

    def draw() -> tuple[Tensor, Tensor]:
        features, labels = data[torch.randperm(len(data))[:size]]
        return features, labels

    return draw


@torch.no_grad()
def accuracy(model: nn.Module, data: Dataset[Any]) -> float:
    """Return the share of the labels of examples that a network predicts."""
    model.eval()
    hits = [model(x).argmax(1) == y for x, y in DataLoader(data, 32)]
    return float(torch.cat([each.flatten() for each in hits]).float().mean())
