"""Videos in shards: the files as they are, with what their headers say, so that none is probed."""

import json
import logging
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path

from geonorm.datasets.shards import Shards, write_shards
from geonorm.datasets.video_index import info_of
from geonorm.datasets.video_io import UndecodableVideoError, VideoInfo, within_file
from geonorm.datasets.video_lists import VideoSet

logger = logging.getLogger(__name__)


class ClipShards(VideoSet):
    """The videos that `geonorm train-action write-shards` wrote.

    Args:
        root: folder of the folders of splits.
        split: one of these, `train`, `val` or `test`.

    Raises:
        ValueError: no finished shards of clips there, or some are missing.

    Example:
        >>> ClipShards("/nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: no index.json in /nowhere/train: expected a folder that geonorm ...
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        shards = Shards(Path(root) / split, "clips")
        videos = []
        for sample, label in zip(shards.samples, shards.about["labels"], strict=True):
            suffix = next(name for name in sample.members if name != "json")
            start, size, _ = sample.members[suffix]
            videos.append((within_file(sample.shard.absolute(), start, size, suffix), label))
        super().__init__(videos, shards.about["classes"])
        self._infos = shards.about["infos"]

    def infos(self, cache: str | Path | None = None) -> list[VideoInfo | UndecodableVideoError]:
        """Return what each video shows, as it was probed when the shards were written."""
        return [info_of(row) for row in self._infos]


def write_clip_shards(
    videos: VideoSet, folder: str | Path, size: int = 128, workers: int = 0
) -> int:
    """Write videos as shards and return how many are new; see `write_shards`.

    Videos that cannot be opened are left out, and named in the log.

    Args:
        videos: the files.
        folder: of this split.
        size: videos in a shard.
        workers: processes that write.
    """
    good, infos = [], []
    for (path, label), info in zip(videos.videos, videos.infos(), strict=True):
        if isinstance(info, VideoInfo):
            good.append((path, label))
            infos.append(astuple(info))
        else:
            logger.warning("%s is left out: %s", path, info)
    about = {
        "classes": list(videos.classes), "labels": [label for _, label in good], "infos": infos
    }  # fmt: skip
    return write_shards(
        folder, "clips", _Members(good), len(good), about, size=size, workers=workers
    )


class _Members:
    """The members of each video: its bytes, and where it comes from."""

    def __init__(self, videos: list[tuple[Path, int]]) -> None:
        self.videos = videos

    def __call__(self, number: int) -> Mapping[str, bytes]:
        path, label = self.videos[number]
        told = {"path": str(path), "label": label}
        suffix = path.suffix.lower().lstrip(".")
        return {"json": json.dumps(told).encode(), suffix: path.read_bytes()}
