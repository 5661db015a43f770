"""Clips of videos: which frames, decoded, transformed, and what to do about files that fail."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from geonorm.datasets.clip_sampling import (
    dense_clip,
    random_clip,
    segment_clip,
    still_clip,
    uniform_clip,
)
from geonorm.datasets.video_io import Frames, Size, UndecodableVideoError, read_frames
from geonorm.datasets.video_lists import VideoSet

logger = logging.getLogger(__name__)

Sampling = Literal["random", "segments", "uniform", "dense", "still"]
_DRAWN_ANEW = ("random", "segments")
Failure = Literal["left out", "skipped", "damaged"]
Transform = Callable[[Tensor, tuple[int, int, int]], Tensor]
# So many files in a row that fail are no accident: the list or the disk is wrong.
_MAX_SUBSTITUTES = 20
_USUAL_RATE = 25.0


class Clip(NamedTuple):
    """One item of a :class:`ClipDataset`; a batch of them, as torch collates it, has the same form.

    Args:
        video: uint8 (T, C, H, W), or what the transform makes of it, as a rule float (C, T, H, W).
        label: the class, -1 where there is none.
        video_index: place of the video in ``dataset.videos``, equal for all views of a video.
        path: the file that was read.
    """

    video: Tensor
    label: int
    video_index: int
    path: str


@dataclass(frozen=True)
class FileReport:
    """A file that failed: left out at the start, or replaced or shortened while reading.

    Args:
        path: the file.
        kind: "left out" (could not be opened), "skipped" (opened, not one frame could be decoded)
            or "damaged" (read, but with errors or shorter than its headers say).
        count: how often it was met.
    """

    path: Path
    kind: Failure
    count: int


class ClipDataset(Dataset[Clip]):
    """Clips of a set of videos; a file that cannot be decoded never ends a run.

    A file that cannot be opened is left out from the start. One that opens but yields no frame is
    replaced by the next video of the list that does, and so is one of which its transform, a
    corruption of codecs, leaves no frame. Both are counted, named once in the log, and
    listed by :meth:`report`; the counts are shared by all workers of a loader. What is random is a
    function of (seed, epoch, index) alone, so neither workers nor resuming change it.

    Args:
        videos: the files, labels and classes.
        length: frames in a clip; a clip longer than its video loops.
        step: frames from one to the next.
        fps: take ``step`` in frames of this rate instead of each video's own: with ``fps=15`` a
            video of 30 frames per second is read at every other frame. A video of variable rate is
            read by its time stamps where they strictly increase, else by its mean rate.
        sampling: "random" (a start drawn anew in each epoch), "segments" (a frame of each of
            ``length`` parts of the video, drawn anew), "uniform" (the middle of each part),
            "dense" (``views`` clips spread over the video) or "still" (one frame repeated: a
            control without motion).
        views: clips per video with "dense" sampling; item ``i`` is view ``i % views`` of video
            ``i // views``.
        repeats: items per video whose frames and transform are drawn anew, each by itself (repeated
            augmentation, Hoffer et al. 2019); item ``i`` is of video ``i // repeats``.
        portion: the part of each video to draw from, as fractions of its length.
        size: what frames are resized to in decoding: (height, width) or the shorter side, pixels.
        transform: called with the uint8 (T, C, H, W) clip and the key (seed, epoch, index).
        seed: of everything random.
        cache: folder of the index of headers; in the user's cache if not given.

    Raises:
        ValueError: an argument out of range, or not one video can be opened.
    """

    def __init__(
        self,
        videos: VideoSet,
        *,
        length: int = 16,
        step: int = 1,
        fps: float | None = None,
        sampling: Sampling = "random",
        views: int = 1,
        repeats: int = 1,
        portion: tuple[float, float] = (0.0, 1.0),
        size: Size = None,
        transform: Transform | None = None,
        seed: int = 0,
        cache: str | Path | None = None,
    ) -> None:
        _check(length, step, fps, sampling, views, portion)
        if repeats < 1 or (repeats > 1 and sampling not in _DRAWN_ANEW):
            raise ValueError(
                f"repeats must be at least 1, and 1 unless sampling draws frames anew "
                f"({', '.join(_DRAWN_ANEW)}); got {repeats} with {sampling!r}"
            )
        if seed < 0:
            raise ValueError(f"seed must be at least 0; got {seed}")
        self.classes = videos.classes
        self.length, self.step, self.fps = length, step, fps
        self.sampling, self.views, self.portion = sampling, views, portion
        self.repeats = repeats
        self.size, self.transform, self.seed = size, transform, seed
        index = videos.infos(cache)
        rows = list(zip(videos.videos, index, strict=True))
        failed = [(path, info) for (path, _), info in rows if isinstance(info, ValueError)]
        self.videos = [video for video, info in rows if not isinstance(info, ValueError)]
        self._infos = [info for info in index if not isinstance(info, ValueError)]
        self._left_out = [path for path, _ in failed]
        for path, error in failed:
            logger.warning("%s is left out: %s", path, error)
        if not self.videos:
            raise ValueError(
                f"not one of {len(failed)} videos can be opened; the first: {failed[0][1]}"
            )
        # Shared memory: every worker of a loader counts here, and sees the epoch change.
        self._skipped = torch.zeros(len(self.videos), dtype=torch.int64).share_memory_()
        self._damaged = torch.zeros(len(self.videos), dtype=torch.int64).share_memory_()
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose which random clips and transforms the items hold."""
        if epoch < 0:
            raise ValueError(f"epoch must be >= 0; got {epoch}")
        self._epoch.fill_(epoch)

    def rate(self, video: int) -> float:
        """Return how many frames of a clip of a video make a second of it; 25 where nothing tells.

        Args:
            video: place in `videos`.
        """
        info = self._infos[video]
        if info.fps > 0 and self.sampling in ("uniform", "segments"):
            first, last = (int(info.frames * part) for part in self.portion)
            return info.fps * self.length / max(last - first, 1)
        return (self.fps or info.fps or _USUAL_RATE) / self.step

    def __len__(self) -> int:
        return len(self.videos) * self.views * self.repeats

    def __getitem__(self, index: int) -> Clip:
        """Return a clip, of a later video where this one cannot be decoded.

        Raises:
            IndexError: outside [0, len(self)).
            ValueError: twenty videos in a row cannot be decoded.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index must be in [0, {len(self)}); got {index}")
        video, view = divmod(index, self.views * self.repeats)
        epoch = int(self._epoch) if self.sampling in _DRAWN_ANEW else 0
        key = (self.seed, epoch, index)
        for place in range(video, video + min(len(self.videos), _MAX_SUBSTITUTES)):
            chosen = place % len(self.videos)
            try:
                return self._clip(self._read(chosen, view, key), chosen, key)
            except UndecodableVideoError as error:
                self._count(self._skipped, chosen, "is skipped, another takes its place", error)
        raise ValueError(
            f"{min(len(self.videos), _MAX_SUBSTITUTES)} videos in a row cannot be decoded, from "
            f"{self.videos[video][0]} on. Run check_data on the list"
        )

    def report(self) -> list[FileReport]:
        """Return every file that failed so far, in this process or a loader's worker."""
        reports = [FileReport(path, "left out", 1) for path in self._left_out]
        failed: tuple[tuple[Tensor, Failure], ...] = (
            (self._skipped, "skipped"), (self._damaged, "damaged")
        )
        for counts, kind in failed:
            for place in counts.nonzero().flatten().tolist():
                reports.append(FileReport(self.videos[place][0], kind, int(counts[place])))
        return reports

    def frames(self, index: int) -> np.ndarray:
        """Return the numbers of a clip's frames in its video, (length,).

        Args:
            index: of the clip.
        """
        video, view = divmod(index, self.views * self.repeats)
        epoch = int(self._epoch) if self.sampling in _DRAWN_ANEW else 0
        return self._chosen(video, view, (self.seed, epoch, index))

    def _chosen(self, video: int, view: int, key: tuple[int, int, int]) -> np.ndarray:
        """Return the numbers of the frames of one clip."""
        info = self._infos[video]
        first = int(info.frames * self.portion[0])
        frames = max(int(info.frames * self.portion[1]) - first, 1)
        step, times = float(self.step), None
        if self.fps is not None and info.times and frames > 1:
            times = np.subtract(info.times[first : first + frames], info.times[first])
            step /= self.fps
        elif self.fps is not None and info.fps > 0:
            step *= info.fps / self.fps
        if self.sampling == "random":
            chosen = random_clip(frames, self.length, step, np.random.default_rng(key), times)
        elif self.sampling == "segments":
            chosen = segment_clip(frames, self.length, np.random.default_rng(key))
        elif self.sampling == "uniform":
            chosen = uniform_clip(frames, self.length)
        elif self.sampling == "dense":
            chosen = dense_clip(frames, self.length, step, view, self.views, times)
        else:
            chosen = still_clip(frames, self.length)
        return first + chosen

    def _read(self, video: int, view: int, key: tuple[int, int, int]) -> Frames:
        """Read the frames of one clip and note damage on the way."""
        info, (path, _) = self._infos[video], self.videos[video]
        chosen = self._chosen(video, view, key)
        read = read_frames(path, chosen.tolist(), size=self.size, info=info)
        if read.errors or read.length is not None:
            what = f"{read.errors} errors" + (
                "" if read.length is None else f", {read.length} of {info.frames} frames"
            )
            self._count(self._damaged, video, "is damaged but read", what)
        return read

    def _clip(self, frames: Frames, video: int, key: tuple[int, int, int]) -> Clip:
        """Transform what was read and say what it is."""
        path, label = self.videos[video]
        clip = torch.from_numpy(frames.video).permute(0, 3, 1, 2)
        if self.transform is not None:
            clip = self.transform(clip, key)
        return Clip(clip.contiguous(), label, video, str(path))

    def _count(self, counts: Tensor, video: int, what: str, why: object) -> None:
        """Count a file that failed, and name it the first time."""
        if counts[video] == 0:
            logger.warning("%s %s: %s", self.videos[video][0], what, why)
        counts[video] += 1


def _check(
    length: int,
    step: int,
    fps: float | None,
    sampling: str,
    views: int,
    portion: tuple[float, float],
) -> None:
    """Refuse what describes no clip."""
    if length < 1 or step < 1 or views < 1:
        raise ValueError(
            f"length, step and views must be at least 1; got {length}, {step}, {views}"
        )
    if fps is not None and not fps > 0:
        raise ValueError(f"fps must be above 0 frames per second; got {fps}")
    if sampling not in get_args(Sampling):
        raise ValueError(f"sampling must be one of {get_args(Sampling)}; got {sampling!r}")
    if views > 1 and sampling != "dense":
        raise ValueError(f"several views need sampling='dense'; got {views} with {sampling!r}")
    if not 0.0 <= portion[0] < portion[1] <= 1.0:
        raise ValueError(f"portion must be fractions 0 <= first < last <= 1; got {portion}")
