"""Time reading a clip of a video file, beside decoding and converting all of the file."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from geonorm.datasets.clip_sampling import uniform_clip
from geonorm.datasets.synthetic.actions import SyntheticActions
from geonorm.datasets.video_io import read_frames
from geonorm.datasets.video_probe import probe

SIZE = (128, 171)  # height and width that torchvision's recipe resizes to


def converted(video: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode a file by PyAV alone, in one thread, and convert every frame; uint8 (T, H, W, 3)."""
    height, width = size or (None, None)
    with av.open(str(video.absolute())) as container:  # 12:30.mp4 alone would name a protocol
        container.streams.video[0].thread_count = 1
        frames = container.decode(video=0)
        return np.stack([f.to_ndarray(format="rgb24", width=width, height=height) for f in frames])


def decode_figures(
    video: Path | None = None, frames: int = 16, repeats: int = 15
) -> list[dict[str, object]]:
    """Time the ways to a clip of a file, alternating; return a row for each.

    Args:
        video: a file that PyAV decodes; a built-in video by default.
        frames: length of the clip, spread over the whole video.
        repeats: measurements of each way.

    Returns:
        For each way its name, the video, its frames, milliseconds at the 20th, 50th and 80th
        percentile, and how many times faster than converting every frame it is in the median.
        "the same again" is the first way measured once more: it differs by noise alone.

    Raises:
        ValueError: the file cannot be decoded.
    """
    video = SyntheticActions("val", num_videos=1).videos[0][0] if video is None else Path(video)
    info = probe(video)
    chosen = uniform_clip(info.frames, frames).tolist()
    ways: dict[str, Callable[[], np.ndarray]] = {
        f"{frames} frames, resized": lambda: read_frames(video, chosen, size=SIZE, info=info).video,
        "the same again": lambda: read_frames(video, chosen, size=SIZE, info=info).video,
        "every frame, resized": lambda: converted(video, SIZE),
        "every frame": lambda: converted(video),
    }
    read = ways[f"{frames} frames, resized"]()
    if not np.array_equal(read, ways["every frame, resized"]()[chosen]):
        raise ValueError(f"the frames read of {video} are not those that PyAV decodes")
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(1e3 * (time.perf_counter() - start))
    slow = statistics.median(times["every frame"])
    rows = []
    for name, values in times.items():
        p20, p50, p80 = np.percentile(values, (20, 50, 80)).round(3).tolist()
        rows.append({"name": name, "video": video.name, "frames": info.frames, "ms_p20": p20,
                     "ms_p50": p50, "ms_p80": p80, "speedup": round(slow / p50, 2)})  # fmt: skip
    return rows
