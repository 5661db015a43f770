"""Video: what light, flicker and repetition do to each norm, from the layer to logits.

A gain leaves an instance norm as it is up to eps / variance, and where a clip is dark or a position
is still, that is not small. The rows of the layers therefore use a small eps, and a clip with noise
everywhere. Logits are shown for both: the default eps is judged where a gain brightens, the small
one under every gain.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.backends import cudnn

from geonorm import SpatioTemporalInstanceNorm
from geonorm.models import r3d_18
from geonorm.models.norm import Norm
from geonorm.training.invariance.table import Row, change, seeded

CHANNELS, GROUPS = 32, 8
LENGTH, CROP = 8, 48
SMALL_EPS = 1e-9
LAYER_TOLERANCE, LOGIT_TOLERANCE = 1e-5, 1e-4
AXES = ("THW", "HW", "T")

Run = Callable[[Tensor], Tensor]


class LocalNorm(nn.Module):
    """Norm over a window of 3×5×5 positions around each: the control of repeated content.

    Repeating every frame, or every pixel, k times gives all statistics over a whole axis the same
    values with the same weights, so no norm of that kind, ours or another, moves. A window of a
    fixed number of positions then holds less of the scene, so this one must.
    """

    def forward(self, x: Tensor) -> Tensor:
        def pool(y: Tensor) -> Tensor:
            for kernel in ((3, 1, 1), (1, 5, 1), (1, 1, 5)):  # the same as at once, in less time
                padding = [size // 2 for size in kernel]
                y = F.avg_pool3d(y, kernel, 1, padding, count_include_pad=False)
            return y

        centred = x - pool(x)
        return centred / (pool(centred * centred) + SMALL_EPS).sqrt()


def clips_of(video: Path | None) -> Tensor:
    """Return clips that differ: built-in videos, or the start, middle and end of one of your own.

    Shape:
        (3, 3, LENGTH, CROP, CROP), pixels over their standard deviation. The mean is left in: a
        gain of the light is a gain of these.

    Raises:
        ValueError: the file cannot be decoded.
    """
    from geonorm.datasets import ClipDataset, ClipTransform, SyntheticActions, VideoSet
    from geonorm.datasets.video_transforms import KINETICS_STD

    videos: VideoSet
    if video is None:
        videos, views = SyntheticActions("val", num_videos=3), 1
    else:
        videos, views = VideoSet([(video, -1)], ()), 3
    transform = ClipTransform(CROP, train=False, mean=(0.0, 0.0, 0.0), std=KINETICS_STD)
    clips = ClipDataset(videos, length=LENGTH, step=2, sampling="dense", views=views, size=CROP + 8,
                        transform=transform)  # fmt: skip
    return torch.stack([clips[i].video for i in range(len(clips))])


def gains(shape: tuple[int, ...], seed: int) -> Tensor:
    """Return gains between 1/2 and 2, evenly in their logarithm."""
    return 2 ** (2 * torch.rand(shape, generator=seeded(seed)) - 1)


def last_changed(x: Tensor, gain: Tensor | float = 1.0, offset: Tensor | float = 0.0) -> Tensor:
    """Return a batch whose last clip alone has a gain and an offset."""
    return torch.cat([x[:-1], x[-1:] * gain + offset])


def spread(x: Tensor, times: int, dims: tuple[int, ...]) -> Tensor:
    """Return x with everything shown so many times along some axes, copies side by side."""
    for dim in dims:
        x = x.repeat_interleave(times, dim)
    return x


def first_of(x: Tensor, times: int, dims: tuple[int, ...]) -> Tensor:
    """Return the first copy of everything that `spread` repeated."""
    for dim in dims:
        x = x.index_select(dim, torch.arange(0, x.shape[dim], times))
    return x


def layer_runs(norm: str) -> dict[str, Run]:
    """Return every norm on (B, CHANNELS, T, H, W), ours by its axes."""
    def ours(axes: str) -> Run:
        if norm == "batch":
            return nn.BatchNorm3d(CHANNELS, eps=SMALL_EPS)
        return SpatioTemporalInstanceNorm(CHANNELS, eps=SMALL_EPS, axes=axes)

    return {
        **{axes: ours(axes) for axes in AXES},
        "batch": nn.BatchNorm3d(CHANNELS, eps=SMALL_EPS),
        "layer": nn.GroupNorm(1, CHANNELS, eps=SMALL_EPS),
        "group": nn.GroupNorm(GROUPS, CHANNELS, eps=SMALL_EPS),
        "local": LocalNorm(),
        "none": nn.Identity(),
    }


def placed(runs: dict[str, Run], device: torch.device | str) -> dict[str, Run]:
    """Return the same norms or networks on a device, each taking and giving tensors of the CPU."""
    def on_device(run: Run) -> Run:
        moved = run.to(device) if isinstance(run, nn.Module) else run
        return lambda x: moved(x.to(device)).cpu()

    return {name: on_device(run) for name, run in runs.items()}


def layer_rows(clips: Tensor, norm: str, device: torch.device | str = "cpu") -> Iterator[Row]:
    """The layers on clips lifted to CHANNELS channels, with a little noise everywhere."""
    lift = torch.randn(CHANNELS, 3, generator=seeded(1))
    x = torch.einsum("dc,bcthw->bdthw", lift, clips)
    x = x + 0.1 * torch.randn(x.shape, generator=seeded(2))
    frames, height, width = x.shape[2:]
    runs = placed(layer_runs(norm), device)
    before = {name: run(x) for name, run in runs.items()}

    def row(pattern: str, changed: Tensor, stays: tuple[str, ...], moves: tuple[str, ...],
            back: Run = lambda y: y) -> Row:  # fmt: skip
        changes: dict[str, float | None] = {
            name: change(before[name], back(run(changed))) for name, run in runs.items()
        }
        return Row("video layer", pattern, changes, stays, LAYER_TOLERANCE, moves)

    per_channel = gains((CHANNELS, 1, 1, 1), 3)
    offset = torch.randn(CHANNELS, 1, 1, 1, generator=seeded(4))
    others = ("batch", "layer", "group")
    yield row("gain, offset, one clip", last_changed(x, per_channel, offset), AXES, others)
    flicker, places = gains((frames, 1, 1), 5), gains((height, width), 6)
    yield row("gain of each frame", x * flicker, ("HW",), ("THW", "batch"))
    yield row("gain of each position", x * places, ("T",), ("THW", "batch"))
    for dims, times, pattern in (((2,), 2, "frames x2"), ((2,), 3, "frames x3"),
                                 ((3, 4), 2, "pixels 2x2"), ((2, 3, 4), 2, "both x2")):
        yield row(pattern, spread(x, times, dims), AXES, ("local",),
                  partial(first_of, times=times, dims=dims))  # fmt: skip


def network_runs(norm: str) -> dict[str, Run]:
    """Return r3d_18 in training mode with each norm, from the same random weights.

    Ours comes with the default eps, with a small one, and with the small one and convolutions that
    repeat the values at the edges of their input in place of zeros.
    """
    precise = partial(SpatioTemporalInstanceNorm, eps=SMALL_EPS)
    ours = ("instance", precise, precise) if norm == "instance" else ("batch",) * 3
    makers: dict[str, Norm] = {
        **dict(zip(("THW", "THW, eps 1e-9", "same, edges"), ours, strict=True)),
        "batch": "batch",
        "layer": lambda channels: nn.GroupNorm(1, channels),
        "none": "none",
    }
    runs: dict[str, Run] = {}
    for name, maker in makers.items():
        torch.manual_seed(0)
        runs[name] = network = r3d_18(num_classes=8, norm=maker)
        for module in network.modules():
            if isinstance(module, nn.Conv3d) and name == "same, edges":
                module.padding_mode = "replicate"
    return runs


def network_rows(clips: Tensor, norm: str, device: torch.device | str = "cpu") -> Iterator[Row]:
    """Logits of r3d_18 under one clip's light.

    A gain a > 0 passes a convolution without bias, zeros around it included, and the norm after it
    takes it out. An offset passes as a constant only where no zero is near: at the border it leaves
    a seam that no norm can know of. The rows of an offset show how far the logits move for it, and
    that with edges repeated in place of zeros they stay.
    """
    runs = placed(network_runs(norm), device)
    before = {name: run(clips) for name, run in runs.items()}
    default, precise, edges = list(runs)[:3]

    def row(pattern: str, changed: Tensor, stays: tuple[str, ...]) -> Row:
        changes: dict[str, float | None] = {
            name: change(before[name], run(changed)) for name, run in runs.items()
        }
        return Row("r3d_18", pattern, changes, stays, LOGIT_TOLERANCE, ("batch", "none"))

    for gain in (0.1, 1.5, 4):
        stays = (precise, edges) if gain < 1 else (default, precise, edges)
        yield row(f"gain {gain:g}, one clip", last_changed(clips, gain), stays)
    for offset in (0.5, 2):
        yield row(f"offset {offset:g}, one clip", last_changed(clips, 1.0, offset), (edges,))


def video_rows(clips: Tensor, norm: str = "instance",
               device: torch.device | str = "cpu") -> list[Row]:
    """Measure every level on some clips.

    Args:
        clips: clips that differ, (B, 3, T, H, W).
        norm: "instance", or "batch" to see the tool fail with batch norm in the place of ours.
        device: where the norms and networks run.
    """
    # TF32, which holds ten bits of a product, would move the logits under any gain.
    with torch.no_grad(), cudnn.flags(enabled=True, allow_tf32=False):
        return [*layer_rows(clips, norm, device), *network_rows(clips, norm, device)]
