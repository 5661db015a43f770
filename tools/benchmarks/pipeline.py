"""From a file to a result: scans to labels and clips to logits, whole and part by part."""

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import MinkowskiEngine as ME
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.video import r3d_18 as torchvision_r3d_18

from benchmarks.measure import Contender
from benchmarks.workload import Workload
from geonorm.datasets.clip_sampling import uniform_clip
from geonorm.datasets.scan_io import read_scan
from geonorm.datasets.synthetic.actions import SyntheticActions
from geonorm.datasets.synthetic.streets import SyntheticStreets
from geonorm.datasets.video_io import read_frames
from geonorm.datasets.voxelize import collate_scans
from geonorm.models import MinkUNet14A, r3d_18

VOXEL_SIZE = 0.1
FRAMES, SIZE, CROP = 16, (128, 171), 112
MEAN, STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
OURS = "ours"
CLASSES = 19


def workloads(scan: Path | None, video: Path | None) -> Iterator[Workload]:
    """Yield the tables of scans, then those of clips."""
    with tempfile.TemporaryDirectory() as folder:
        file = scan or _built_in_scan(Path(folder))
        yield from _scan_tables(file)
    yield from _clip_tables(video or SyntheticActions("val", num_videos=1).videos[0][0])


def _table(
    name: str, file: Path, work: str, baseline: str, ways: dict[str, Callable[[], object]]
) -> Workload:
    return Workload(
        "pipeline", name, file.suffix[1:], "float32", work, baseline, file.stat().st_size,
        lambda: [Contender(way, run) for way, run in ways.items()],
    )  # fmt: skip


# Scans.


def _built_in_scan(folder: Path) -> Path:
    scan = SyntheticStreets(num_scans=1, seed=7)[0]
    file = folder / "street.bin"
    np.column_stack([scan.points, scan.feature("intensity")]).astype("<f4").tofile(file)
    return file


def _scan_tables(file: Path) -> Iterator[Workload]:
    scan = read_scan(file)
    name = f"scan of {len(scan):,} points"
    yield _table(name, file, "read", "np.fromfile", {
        "np.fromfile": lambda: np.fromfile(file, "<f4").reshape(-1, 4),
        OURS: lambda: read_scan(file),
    })  # fmt: skip
    cells = np.floor(scan.points / VOXEL_SIZE).astype(np.int32)
    yield _table(name, file, f"voxels of {VOXEL_SIZE} m", "sparse_quantize", {
        "sparse_quantize": lambda: ME.utils.sparse_quantize(
            cells, return_index=True, return_inverse=True
        ),
        "np.unique of hashes": lambda: _hash_grid(cells),
        OURS + ", with features and labels": lambda: collate_scans([scan], VOXEL_SIZE),
    })  # fmt: skip
    torch.manual_seed(0)
    plain = MinkUNet14A(4, CLASSES, norm="batch", convolution="minkowski").eval()
    with_batch, with_ours = (MinkUNet14A(4, CLASSES, norm=n).eval() for n in ("batch", "instance"))
    yield _table(name, file, "disk to labels", "plain MinkowskiEngine", {
        "plain MinkowskiEngine": lambda: _plain_labels(file, plain),
        OURS + ", batch norm": lambda: _labels(file, with_batch),
        OURS + ", instance norm": lambda: _labels(file, with_ours),
    })  # fmt: skip


def _hash_grid(cells: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return one key for each voxel, an index of a point in it, and each point's voxel."""
    moved = (cells - cells.min(0)).astype(np.int64)
    sides = moved.max(0) + 1
    keys = (moved[:, 0] * sides[1] + moved[:, 1]) * sides[2] + moved[:, 2]
    return np.unique(keys, return_index=True, return_inverse=True)


@torch.inference_mode()
def _plain_labels(file: Path, network: nn.Module) -> Tensor:
    """Segment a scan as MinkowskiEngine's examples do it."""
    raw = np.fromfile(file, "<f4").reshape(-1, 4)
    cells = np.floor(raw[:, :3] / VOXEL_SIZE).astype(np.int32)
    coordinates, index, inverse = ME.utils.sparse_quantize(
        cells, return_index=True, return_inverse=True
    )
    features = torch.from_numpy(raw)[index]
    x = ME.SparseTensor(features, ME.utils.batched_coordinates([coordinates]))
    return network(x).F.argmax(1)[inverse]


@torch.inference_mode()
def _labels(file: Path, network: nn.Module) -> Tensor:
    """Segment a scan as `geonorm predict` does it."""
    batch = collate_scans([read_scan(file)], VOXEL_SIZE)
    logits = network(ME.SparseTensor(batch.features, batch.coordinates)).F
    return logits.argmax(1)[batch.inverse]


# Clips.


def _clip_tables(video: Path) -> Iterator[Workload]:
    chosen = _chosen(video)
    name = f"{video.suffix[1:]} of {_count(video)} frames"
    yield _table(name, video, f"{FRAMES} frames, resized", "PyAV, every frame", {
        "PyAV, every frame": lambda: _every_frame(video)[chosen],
        OURS: lambda: read_frames(video, chosen, size=SIZE).video,
        **_other_decoders(video, chosen),
    })  # fmt: skip
    torch.manual_seed(0)
    theirs, with_ours = torchvision_r3d_18().eval(), r3d_18().eval()
    yield _table(name, video, "disk to logits", "PyAV and torchvision", {
        "PyAV and torchvision": lambda: _logits(_every_frame(video)[chosen], theirs),
        OURS + ", torchvision's network": lambda: _logits(
            read_frames(video, chosen, size=SIZE).video, theirs
        ),
        OURS: lambda: _logits(read_frames(video, chosen, size=SIZE).video, with_ours),
    })  # fmt: skip


def _count(video: Path) -> int:
    with av.open(str(video.absolute())) as container:
        return sum(1 for _ in container.decode(video=0))


def _chosen(video: Path) -> list[int]:
    chosen: list[int] = uniform_clip(_count(video), FRAMES).tolist()
    return chosen


def _every_frame(video: Path) -> np.ndarray:
    """Decode a file from its beginning to its end, as torchvision's read_video did."""
    with av.open(str(video.absolute())) as container:
        container.streams.video[0].thread_type = "AUTO"
        return np.stack(
            [
                frame.to_ndarray(format="rgb24", width=SIZE[1], height=SIZE[0])
                for frame in container.decode(video=0)
            ]
        )


def _other_decoders(video: Path, chosen: list[int]) -> dict[str, Callable[[], Any]]:
    """Return those that are installed; say which are not."""
    ways: dict[str, Callable[[], Any]] = {}
    if importlib.util.find_spec("decord") is not None:
        import decord

        ways["decord2"] = lambda: decord.VideoReader(
            str(video), height=SIZE[0], width=SIZE[1]
        ).get_batch(chosen).asnumpy()  # fmt: skip
    if importlib.util.find_spec("torchcodec") is not None:
        from torchcodec.decoders import VideoDecoder

        ways["torchcodec"] = lambda: F.interpolate(
            VideoDecoder(str(video)).get_frames_at(chosen).data.float(), SIZE, mode="bilinear",
            antialias=True,
        )  # fmt: skip
    for name in {"decord2", "torchcodec"} - {*ways}:
        print(f"{name} is not installed, and not measured: pip install {name}")
    return ways


@torch.inference_mode()
def _logits(frames: np.ndarray, network: nn.Module) -> Tensor:
    """Classify the middle square of a clip."""
    top, left = ((side - CROP) // 2 for side in frames.shape[1:3])
    square = torch.from_numpy(frames[:, top : top + CROP, left : left + CROP])
    clip = (square.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    return network(clip.permute(3, 0, 1, 2)[None])
