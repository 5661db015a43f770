"""Count the frames that a video shows and tell their times, if possible without decoding it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from geonorm.datasets.video_io import (
    Decoder,
    UndecodableVideoError,
    VideoInfo,
    demuxed,
    open_video,
)

# A packet of fewer bytes may tell that the picture before it stays, and be no frame (MPEG-4's
# frames that are not coded, which players do not show anew).
_SMALLEST_PICTURE = 12
_HIDING = ("vp8", "vp9")  # codecs with frames that are only referred to


def probe(path: str | Path) -> VideoInfo:
    """Return what a video shows, from its headers and its first frame where these tell it all.

    The packets of the whole file are read where the headers do not list them, where some are not
    shown, and where the rate varies. The whole file is decoded where a packet need not be a frame.

    Raises:
        UndecodableVideoError: as :func:`open_video`, or there is no frame.
    """
    with open_video(path) as (container, stream):
        listed = [
            _Entry(entry.timestamp, entry.timestamp, entry.is_keyframe, entry.size)
            for entry in stream.index_entries
            if not entry.is_discard
        ]
        complete = bool(stream.frames) and len(listed) == stream.frames
        hiding = stream.codec_context.name in _HIDING
        brief = complete and not hiding and not _is_variable(_times_of(listed))
        shown, certain = _surveyed(container, stream, brief=brief)
        if brief or (complete and len(shown) < len(listed)):  # the latter: a file cut short
            shown = listed
        if not certain or any(entry.size < _SMALLEST_PICTURE for entry in shown):
            decoded = _decoded(path)
            if decoded and len(decoded) != len(shown):
                shown, complete = decoded, False
        if not shown:
            raise UndecodableVideoError(
                f"expected frames; {path} holds a video stream of zero frames. Take it off the list"
            )
        stated = float(stream.average_rate or stream.guessed_rate or 0)
        fps, times = _timing(_times_of(shown), stream.time_base, stated)
        return VideoInfo(
            frames=len(shown),
            fps=fps,
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            keyframes=tuple(number for number, entry in enumerate(shown) if entry.key),
            enterable=complete and not stream.codec_context.has_b_frames,
            times=times,
        )


class _Entry(NamedTuple):
    """A frame that is shown, or a packet that holds one."""

    pts: int | None
    dts: int | None
    key: bool
    size: int


def _surveyed(
    container: InputContainer, stream: VideoStream, *, brief: bool
) -> tuple[list[_Entry], bool]:
    """Read packets and decode the first frame.

    Args:
        brief: stop at the first frame instead of the end of the file.

    Returns:
        The packets that are shown, and whether each of them is a frame as far as they tell: the
        frame with the smallest time stamp comes out, nothing fails before it, and no packet says
        that it is hidden. A stream that begins in the middle loses frames at its start.
    """
    shown: list[_Entry] = []
    first: VideoFrame | None = None
    certain = True
    for packet in demuxed(container, stream):
        certain = certain and not _is_hidden(packet)
        if packet.size and not packet.is_discard:
            shown.append(_Entry(packet.pts, packet.dts, packet.is_keyframe, packet.size))
        if first is None and certain:
            try:
                first = next(iter(packet.decode()), None)
            except av.FFmpegError:
                certain = False
            stamps = [entry.pts for entry in shown if entry.pts is not None]
            if first is not None and first.pts is not None and stamps:
                certain = first.pts == min(stamps)
        if brief and (first is not None or not certain):
            break
    return shown, certain


def _is_hidden(packet: Packet[VideoStream]) -> bool:
    """Tell whether a packet of VP8 or VP9 holds a frame that is only referred to (RFC 6386, 9.1).

    VP9 packs such frames with a shown one as a rule, in a superframe, whose last byte tells it.
    """
    codec = packet.stream.codec_context.name
    if not packet.size or codec not in _HIDING:
        return False
    data = memoryview(packet)
    if codec == "vp8":
        return not data[0] & 0x10
    return not data[0] & 0x0A and data[-1] & 0xE0 != 0xC0


def _decoded(path: str | Path) -> list[_Entry]:
    """Decode a whole file and return its frames in the order in which they come out."""
    with open_video(path) as (container, stream):
        decoder = Decoder(container.demux(stream), stream)
        return [_Entry(f.pts, f.dts, f.key_frame, _SMALLEST_PICTURE) for f in decoder]


def _times_of(shown: Sequence[_Entry]) -> list[int]:
    """Return when the frames are shown, in ticks, or nothing where no time stamps are trustworthy.

    Trustworthy are those that strictly increase once sorted: packets lie in decode order. Where
    times of showing fail, as in AVI files with B-frames (all such of UCF101's), those of decoding
    serve: the differences are the same, as the delay between the two is constant.
    """
    for stamps in ([entry.pts for entry in shown], [entry.dts for entry in shown]):
        known = sorted(stamp for stamp in stamps if stamp is not None)
        if len(known) == len(shown) and all(a < b for a, b in pairwise(known)):
            return known
    return []


def _timing(
    ticks: list[int], tick: Fraction | None, stated: float
) -> tuple[float, tuple[float, ...]]:
    """Return the mean rate, and seconds from the first frame to each where they are uneven."""
    if len(ticks) < 2 or not tick:
        return stated, ()
    span = float((ticks[-1] - ticks[0]) * tick)
    measured = (len(ticks) - 1) / span
    if _is_variable(ticks):
        return measured, tuple(round(float((time - ticks[0]) * tick), 6) for time in ticks)
    # Stamps are rounded to ticks, which may be as long as a frame (AVI) or a millisecond (WebM).
    agrees = stated and abs(span - (len(ticks) - 1) / stated) <= min(float(tick), 0.25 / stated)
    return stated if agrees else measured, ()


def _is_variable(ticks: Sequence[int]) -> bool:
    """Tell whether frames are unevenly spaced, rounding apart.

    They are where more than one interval in a hundred differs from the median by more than half of
    it, or a frame is more than half an interval away from its place at the mean rate.
    """
    if len(ticks) < 3:
        return False
    times = np.asarray(ticks, dtype=np.float64) - ticks[0]
    even = np.linspace(0, times[-1], len(times))
    steps = np.diff(times)
    odd = np.abs(steps - np.median(steps)) > 0.5 * np.median(steps)
    return bool(odd.mean() > 0.01 or np.abs(times - even).max() > 0.5 * even[1])
