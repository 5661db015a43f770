"""Reading chosen frames of a video file: in decode order, upright, resized, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

Size = int | tuple[int, int] | None


class UndecodableVideoError(ValueError):
    """The file yields no frame: it is missing, no video, truncated, empty, or sound alone."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file's headers tell of its video, without decoding it.

    Args:
        frames: packets of the video stream that are shown; a damaged file decodes to fewer.
        fps: mean frame rate in frames per second, 0.0 where the file states none.
        width: of the stored picture, before its rotation, in pixels.
        height: likewise.
        keyframes: frame numbers of the keyframes, in decode order.
        enterable: whether decoding may begin at a keyframe: the headers list every packet, and
            packets leave the decoder in the order they enter it. With B-frames they do not, and a
            keyframe's number does not tell which frame it decodes to.
        variable_rate: whether more than one interval in a hundred is half a frame off the median.
    """

    frames: int
    fps: float
    width: int
    height: int
    keyframes: tuple[int, ...]
    enterable: bool
    variable_rate: bool

    def entry_before(self, frame: int) -> int:
        """Return the last frame at which decoding may begin and still give ``frame`` exactly."""
        if not self.enterable:
            return 0
        return max((key for key in self.keyframes if key <= frame), default=0)


@dataclass(frozen=True)
class Frames:
    """Frames read from a file.

    Args:
        video: uint8 (T, H, W, 3), RGB.
        errors: packets on the way that failed (each shifts what follows) and frames that the
            decoder marked as corrupt.
        length: how many frames the file really holds, where it ended before the last one asked
            for (the frames asked for beyond it were then taken modulo this length); else None.
    """

    video: np.ndarray
    errors: int
    length: int | None


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file's first moving picture, decoding in one thread, and close it on leaving.

    Decoding threads gain nothing on clips and hang in DataLoader workers (PyAV issues 1849, 1961).

    Raises:
        UndecodableVideoError: the file is missing, no video, truncated or sound alone.
    """
    try:
        container = av.open(str(path), metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        raise UndecodableVideoError(
            f"expected a video; {path} cannot be opened ({_reason(error)}): it is missing, "
            "truncated or no video. Fetch it anew or take it off the list"
        ) from error
    with container:
        streams = [
            stream for stream in container.streams.video
            if not stream.disposition & Disposition.attached_pic
        ]
        if not streams:
            kinds = " and ".join(sorted({stream.type for stream in container.streams}))
            raise UndecodableVideoError(
                f"expected a video stream; {path} holds {kinds or 'zero frames of anything'} only. "
                "Take it off the list"
            )
        if streams[0].codec_context is None:
            raise UndecodableVideoError(
                f"expected a codec that this FFmpeg decodes; {path} has another. Convert the file"
            )
        streams[0].thread_count = 1
        yield container, streams[0]


def probe(path: str | Path) -> VideoInfo:
    """Return what the headers tell of a video; read its packets only where they tell no length.

    Raises:
        UndecodableVideoError: as :func:`open_video`, or there is no frame.
    """
    with open_video(path) as (container, stream):
        entries = [entry for entry in stream.index_entries if not entry.is_discard]
        listed = bool(stream.frames) and len(entries) == stream.frames
        if listed:
            times = [entry.timestamp for entry in entries]
            keys = [entry.is_keyframe for entry in entries]
        else:
            packets = [packet for packet in _demuxed(container, stream) if packet.size]
            times = [packet.dts for packet in packets if packet.dts is not None]
            keys = [packet.is_keyframe for packet in packets]
        if not keys:
            raise UndecodableVideoError(
                f"expected frames; {path} holds a video stream of zero frames. Take it off the list"
            )
        return VideoInfo(
            frames=len(keys),
            fps=float(stream.average_rate or stream.guessed_rate or 0),
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            keyframes=tuple(number for number, key in enumerate(keys) if key),
            enterable=listed and not stream.codec_context.has_b_frames,
            variable_rate=_is_variable(times),
        )


def read_frames(
    path: str | Path,
    indices: Sequence[int],
    *,
    size: Size = None,
    info: VideoInfo | None = None,
) -> Frames:
    """Read the frames with the given numbers, counted from 0 in the order of decoding.

    Timestamps are not consulted: in many files (all of UCF101's with B-frames) they run backwards,
    and sorting by them scrambles the frames. Only the chosen frames are converted to RGB, resized
    in the same call, and turned upright (phones store their films sideways). A packet that fails
    is counted and passed over; a file that ends early is read modulo the length it has.

    Args:
        indices: frame numbers, at least one, none negative, in any order, repeats allowed.
        size: (height, width) in pixels, or the length of the shorter side, or None to keep it.
        info: the file's :func:`probe`; with it, decoding begins at the last keyframe it may.

    Raises:
        ValueError: no index, or a negative one.
        UndecodableVideoError: as :func:`open_video`, or nothing could be decoded.
    """
    numbers = [int(index) for index in indices]
    if not numbers or min(numbers) < 0:
        raise ValueError(f"indices must be frame numbers, at least one, from 0; got {numbers}")
    with open_video(path) as (container, stream):
        first = info.entry_before(min(numbers)) if info else 0
        packets = container.demux(stream)
        if first:
            landed = _entered(container, stream, first)
            if landed is None:
                return read_frames(path, numbers, size=size)
            packets = chain([landed], container.demux(stream))
        decoder = _Decoder(packets, stream)
        images, end = _converted(decoder, first, set(numbers), size)
    if end is None:
        return Frames(np.stack([images[number] for number in numbers]), decoder.errors, None)
    if first:
        return read_frames(path, numbers, size=size)
    if end == 0:
        raise UndecodableVideoError(
            f"expected frames; not one of {path} can be decoded ({decoder.errors} errors). "
            "Fetch it anew or take it off the list"
        )
    again = read_frames(path, [number % end for number in numbers], size=size)
    return Frames(again.video, max(again.errors, decoder.errors), end)


def decoded_frames(path: str | Path) -> tuple[int, int, int]:
    """Decode a whole file; return its frames, its errors (see Frames) and degrees of rotation."""
    with open_video(path) as (container, stream):
        decoder = _Decoder(container.demux(stream), stream)
        count, rotation = 0, 0
        for frame in decoder:
            count, rotation = count + 1, frame.rotation
        return count, decoder.errors, rotation


class _Decoder:
    """Frames in decode order; ``errors`` counts packets that failed and corrupt frames."""

    def __init__(self, packets: Iterator[Packet], stream: VideoStream) -> None:
        self.packets = packets
        self.stream = stream
        self.errors = 0

    def __iter__(self) -> Iterator[VideoFrame]:
        while True:
            try:
                packet = next(self.packets)
            except StopIteration:
                return
            except av.FFmpegError:
                # The rest of the file cannot be read; what the decoder holds back still can.
                self.errors += 1
                yield from self.stream.codec_context.decode(None)
                return
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self.errors += 1
                continue
            self.errors += sum(frame.is_corrupt for frame in frames)
            yield from frames


def _demuxed(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """Yield packets up to the end of the file or of what can be read of it."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            return
        yield packet


def _entered(container: InputContainer, stream: VideoStream, keyframe: int) -> Packet | None:
    """Seek to a keyframe; return its packet, or None where the demuxer landed elsewhere."""
    if keyframe >= len(stream.index_entries):
        return None
    entry = stream.index_entries[keyframe]
    container.seek(entry.timestamp, stream=stream)
    packet = next(_demuxed(container, stream), None)
    if packet is None or (packet.dts, packet.size) != (entry.timestamp, entry.size):
        return None
    return packet


def _converted(
    decoder: _Decoder, first: int, wanted: set[int], size: Size
) -> tuple[dict[int, np.ndarray], int | None]:
    """Convert the wanted frames; also return the number of frames if they end too early."""
    images: dict[int, np.ndarray] = {}
    reformatter = VideoReformatter()
    number, last = first - 1, max(wanted)
    for number, frame in enumerate(decoder, first):
        if number not in wanted:
            continue
        turns = round(frame.rotation / 90) % 4
        if not images:
            height, width = _target(frame, size, sideways=turns % 2 == 1)
        picture = reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
        images[number] = np.rot90(picture, turns)
        if number == last:
            return images, None
    return images, number + 1


def _target(frame: VideoFrame, size: Size, *, sideways: bool) -> tuple[int, int]:
    """Return the (height, width) to convert to before turning the picture upright."""
    if size is None:
        return frame.height, frame.width
    if isinstance(size, int):
        scale = size / min(frame.height, frame.width)
        return max(size, round(frame.height * scale)), max(size, round(frame.width * scale))
    height, width = size
    return (width, height) if sideways else (height, width)


def _is_variable(times: Sequence[int]) -> bool:
    """Tell whether the intervals between decoding times differ, rounding and a few gaps apart."""
    if len(times) < 3:
        return False
    steps = np.diff(np.asarray(times, dtype=np.int64))
    median = float(np.median(steps))
    return bool((np.abs(steps - median) > 0.5 * abs(median)).mean() > 0.01)


def _reason(error: Exception) -> str:
    """Return FFmpeg's words without the path it repeats."""
    return getattr(error, "strerror", None) or str(error)
