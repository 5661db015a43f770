"""Reading and writing video files: what they show, chosen frames of it, and new files.

A file shows what a player shows of it. That differs from the packets it stores: an edit list cuts
frames away, frames at the start may refer to others that are gone, and some are never shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

Size = int | tuple[int, int] | None
USUAL_FPS = 25.0  # where a file tells no rate
_WITHIN = re.compile(r"(?P<start>\d+)\+(?P<size>\d+)\.\w+")


class UndecodableVideoError(ValueError):
    """The file yields no frame: it is missing, no video, truncated, empty, or sound alone."""


@dataclass(frozen=True)
class VideoInfo:
    """The frames of a video that are shown, as far as that can be told without decoding it all.

    Args:
        frames: how many are shown; a damaged file decodes to fewer.
        fps: mean frame rate in frames per second: the stated one where the time stamps agree with
            it, else theirs; 0.0 where there is neither.
        width: of the stored picture, before it is turned upright, in pixels.
        height: likewise.
        keyframes: frame numbers of the keyframes, in decode order.
        enterable: whether decoding may begin at a keyframe: the headers list every packet, each
            packet is a shown frame, and frames leave the decoder in the order of their packets.
            With B-frames they do not, and a keyframe's number does not tell which frame it is.
        times: seconds from the first frame to each, where the rate varies and the time stamps
            strictly increase; else empty.
    """

    frames: int
    fps: float
    width: int
    height: int
    keyframes: tuple[int, ...]
    enterable: bool
    times: tuple[float, ...]

    @property
    def variable_rate(self) -> bool:
        """Tell whether the frames are unevenly spaced in time."""
        return bool(self.times)

    @property
    def rate(self) -> float:
        """Frames per second, 25 where the file tells no rate."""
        return self.fps or USUAL_FPS

    @property
    def seconds(self) -> np.ndarray:
        """Seconds from the first frame to each, (T,)."""
        return np.array(self.times) if self.times else np.arange(self.frames) / self.rate

    @property
    def duration(self) -> float:
        """Seconds that the video lasts; the last frame is shown as long as a mean one."""
        return self.frames / self.rate

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
        container = av.open(location(path), metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        raise UndecodableVideoError(
            f"expected a video; {path} cannot be opened ({reason(error)}): it is missing, "
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
        decoder = Decoder(packets, stream)
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


def decoded_frames(path: str | Path) -> tuple[int, int, str]:
    """Decode a whole file; return its frames, its errors (see Frames) and how it is stored.

    The last is "" for an upright picture, or words such as "turned by 90 degrees".
    """
    with open_video(path) as (container, stream):
        decoder = Decoder(container.demux(stream), stream)
        count, stored = 0, ""
        for frame in decoder:
            count, stored = count + 1, _orientation(frame).words
        return count, decoder.errors, stored


def write_video(
    path: str | Path, film: np.ndarray, *, fps: int = 25, codec: str = "libx264"
) -> None:
    """Encode uint8 RGB frames (T, H, W, 3) with even sides to a file.

    Args:
        path: the file; its suffix chooses the container.
        film: the frames.
        fps: frames per second.
        codec: FFmpeg's name of an encoder that takes yuv420p.

    Raises:
        ValueError: not uint8 (T, H, W, 3), no frame, or an odd side, or a codec of sound or text.
    """
    if film.dtype != np.uint8 or film.ndim != 4 or film.shape[-1] != 3 or not len(film):
        raise ValueError(f"film must be uint8 (T, H, W, 3); got {film.dtype} {film.shape}")
    if film.shape[1] % 2 or film.shape[2] % 2:
        raise ValueError(f"both sides of a film must be even; got {film.shape[1:3]}")
    options = {"crf": "18", "preset": "veryfast"} if codec == "libx264" else {"q": "3"}
    encode(location(path), film, fps=fps, codec=codec, options=options)


def encode(
    target: str | BytesIO,
    film: np.ndarray,
    *,
    fps: float,
    codec: str,
    options: dict[str, str],
    container: str | None = None,
) -> None:
    """Encode a film in one thread, to a file or to memory.

    Args:
        target: where to.
        film: uint8 RGB (T, H, W, 3) with even sides.
        fps: frames per second.
        codec: FFmpeg's name of an encoder that takes yuv420p.
        options: the encoder's.
        container: FFmpeg's name of the format; by default the target's suffix tells.

    Raises:
        ValueError: a codec of sound or text.
    """
    kind = av.Codec(codec, "w").type
    if kind != "video":
        raise ValueError(f"codec must encode pictures; {codec!r} encodes {kind}")
    with av.open(target, "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = film.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.options = options
        for picture in film:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


class Decoder:
    """Frames in decode order; ``errors`` counts packets that failed and corrupt frames."""

    def __init__(self, packets: Iterator[Packet[VideoStream]], stream: VideoStream) -> None:
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
                frames = self.stream.decode(packet)  # whose packet, once filtered, forgets it
            except av.FFmpegError:
                self.errors += 1
                continue
            self.errors += sum(frame.is_corrupt for frame in frames)
            yield from frames


class _Orientation(NamedTuple):
    """The way from a stored picture to an upright one: transposed first, then mirrored."""

    transposed: bool
    left_right: bool
    up_down: bool

    def upright(self, picture: np.ndarray) -> np.ndarray:
        """Return the picture (H, W, 3) as it is meant to be seen."""
        if self.transposed:
            picture = picture.transpose(1, 0, 2)
        return picture[:: -1 if self.up_down else 1, :: -1 if self.left_right else 1]

    @property
    def words(self) -> str:
        """The same in words, turns counted clockwise; "" where there is nothing to do."""
        quarter = "turned by 90 degrees and " if self.transposed else ""
        return {
            (False, False, False): "",
            (False, True, True): "turned by 180 degrees",
            (True, False, True): "turned by 90 degrees",
            (True, True, False): "turned by 270 degrees",
        }.get(self, f"{quarter}mirrored")


def demuxed(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Yield packets up to the end of the file or of what can be read of it."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            return
        yield packet


def _entered(
    container: InputContainer, stream: VideoStream, keyframe: int
) -> Packet[VideoStream] | None:
    """Seek to a keyframe; return its packet, or None where the demuxer landed elsewhere."""
    if keyframe >= len(stream.index_entries):
        return None
    entry = stream.index_entries[keyframe]
    container.seek(entry.timestamp, stream=stream)
    packet = next(demuxed(container, stream), None)
    if packet is None or (packet.dts, packet.size) != (entry.timestamp, entry.size):
        return None
    return packet


def _converted(
    decoder: Decoder, first: int, wanted: set[int], size: Size
) -> tuple[dict[int, np.ndarray], int | None]:
    """Convert the wanted frames; also return the number of frames if they end too early."""
    images: dict[int, np.ndarray] = {}
    reformatter = VideoReformatter()
    number, last = first - 1, max(wanted)
    for number, frame in enumerate(decoder, first):
        if number not in wanted:
            continue
        orientation = _orientation(frame)
        if not images:
            height, width = _target(frame, size, sideways=orientation.transposed)
        picture = reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
        images[number] = orientation.upright(picture)
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


def _orientation(frame: VideoFrame) -> _Orientation:
    """Read a frame's display matrix, rounded to a quarter turn: (x, y) goes to (x, y) · matrix."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")  # PyAV's stubs know motion vectors alone
    if data is None:
        return _Orientation(False, False, False)
    (a, b), (c, d) = np.frombuffer(data, np.int32).reshape(3, 3)[:2, :2].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return _Orientation(False, a < 0, d < 0)
    return _Orientation(True, c < 0, b < 0)


def location(path: str | Path) -> str:
    """Return a name that FFmpeg takes for a file; ``12:30.mp4`` alone has it look for a protocol.

    An absolute path begins with no letter, and so never with a protocol. Of a video within a file,
    as `within_file` names it, it is FFmpeg's name of those bytes.
    """
    path = Path(path).absolute()
    place = _WITHIN.fullmatch(path.name)
    if place is None or not path.parent.is_file():
        return str(path)
    start, size = int(place["start"]), int(place["size"])
    return f"subfile,,start,{start},end,{start + size},,:{path.parent}"


def within_file(path: Path, start: int, size: int, suffix: str) -> Path:
    """Return a name, for all that reads videos, of one that lies within a file such as a shard.

    Args:
        path: the file.
        start: its first byte there.
        size: its bytes.
        suffix: of its own format, such as "mp4".

    Example:
        >>> within_file(Path("/data/shard-000000.tar"), 512, 9000, "mp4").as_posix()
        '/data/shard-000000.tar/512+9000.mp4'
    """
    return path / f"{start}+{size}.{suffix}"


def reason(error: Exception) -> str:
    """Return FFmpeg's words without the path it repeats."""
    return getattr(error, "strerror", None) or str(error)
