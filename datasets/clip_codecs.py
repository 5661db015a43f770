"""A clip through a codec and back, with its packets harmed on the way: FFmpeg by PyAV, in memory.

Frames that a damaged stream does not give are filled in as players do: the last frame that could
be decoded stays on the screen, and before the first one stands the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from itertools import chain
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.codec.context import Flags
from av.packet import Packet
from av.video.stream import VideoStream

from geonorm.datasets.video_io import Decoder, UndecodableVideoError, encode

TS_PACKET = 188
_LEAST, _LEAST_FRAMES = 96, 4
# Of small clips, what x264's vectorized code and x265's cutree give differs from call to call. x265
# writes to the terminal and starts threads by itself.
_ENCODERS = {
    "libx264": {"x264-params": "asm=0"},
    "libx265": {"x265-params": "log-level=none:pools=none:frame-threads=1:no-cutree=1"},
}


def compressed(film: np.ndarray, fps: float, codec: str, **options: str) -> np.ndarray:
    """Return the frames of a clip as a codec gives them back.

    Args:
        film: the frames.
        fps: their rate, frames per second.
        codec: "libx264" or "libx265".
        options: FFmpeg's of the encoder, such as crf.

    Shape:
        uint8 (T, H, W, 3) to the same.
    """
    return _decoded(_encoded(film, fps, codec, "mp4", options), film, fps)


def bit_rate(film: np.ndarray, fps: float) -> float:
    """Return the bits per second of a clip in H.264 at the encoder's own quality (CRF 23)."""
    stream = _encoded(film, fps, "libx264", "mp4", {})
    with av.open(BytesIO(stream), "r") as container:
        size: int = sum(packet.size for packet in container.demux(video=0))
    return 8 * size * fps / len(film)


def with_bit_errors(film: np.ndarray, fps: float, interval: int) -> np.ndarray:
    """Return the frames of a clip from an H.264 stream in which one byte of ``interval`` is wrong.

    The bytes are chosen by FFmpeg's filter `noise`, which depends on the stream alone: nothing is
    drawn. Headers of the file are left as they are.

    Raises:
        UndecodableVideoError: not one frame can be decoded.
    """
    stream = _encoded(film, fps, "libx264", "mp4", {})
    return _decoded(stream, film, fps, f"noise={interval}")


def with_packet_loss(
    film: np.ndarray, fps: float, share: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the frames of a clip from an H.264 transport stream that lost a share of its packets.

    The receiver knows the stream's parameter sets, as one does that is told them before a session,
    and shows what it decodes, damaged or not.

    Raises:
        UndecodableVideoError: not one frame can be decoded.
    """
    stream = _encoded(film, fps, "libx264", "mpegts", {})
    return _decoded(without_packets(stream, share, rng), film, fps, intact=stream)


def without_packets(stream: bytes, share: float, rng: np.random.Generator) -> bytes:
    """Return an MPEG transport stream without packets, each lost with probability ``share``."""
    packets = np.frombuffer(stream, np.uint8).reshape(-1, TS_PACKET)
    return packets[rng.random(len(packets)) >= share].tobytes()


def _encoded(
    film: np.ndarray, fps: float, codec: str, container: str, options: dict[str, str]
) -> bytes:
    """Return a clip's file, its pictures extended to what encoders take; `_decoded` cuts it off.

    Sides must be even. Below 64 pixels x265 writes beyond its memory, with 64 its average
    bit rates differ from call to call, and MP4 takes no stream of its of one or two frames.
    """
    height, width = film.shape[1:3]
    frames, below, right = (
        max(least - size, 0)
        for least, size in ((_LEAST_FRAMES, len(film)), (_LEAST, height), (_LEAST, width))
    )
    below, right = below + (height + below) % 2, right + (width + right) % 2
    even = np.pad(film, ((0, frames), (0, below), (0, right), (0, 0)), mode="edge")
    options = {**options, **_ENCODERS[codec]}
    target = BytesIO()
    encode(target, even, fps=fps, codec=codec, options=options, container=container)
    return target.getvalue()


def _decoded(
    stream: bytes, film: np.ndarray, fps: float, bitstream_filter: str = "",
    intact: bytes | None = None,
) -> np.ndarray:
    """Return as many frames as the clip had, of its size.

    Args:
        stream: the file.
        film: the clip before it was encoded.
        fps: its rate.
        bitstream_filter: what packets go through before they are decoded.
        intact: the stream before it was damaged, which tells a receiver its parameter sets.
    """
    frames: dict[int, np.ndarray] = {}
    first, parameter_sets = _start(intact or stream)
    try:
        with av.open(BytesIO(stream), "r", metadata_errors="ignore") as container:
            video = container.streams.video[0]
            video.thread_count = 1
            video.codec_context.flags |= Flags.output_corrupt
            packets: Iterator[Any] = container.demux(video)
            if intact is not None:  # first of all; a decoder's extradata, set anew, is freed twice
                packets = chain([av.Packet(parameter_sets)], packets)
            if bitstream_filter:
                packets = _filtered(packets, BitStreamFilterContext(bitstream_filter, video))
            for frame in Decoder(packets, video):
                if frame.pts is None or video.time_base is None:
                    continue
                number = round(float((frame.pts - first) * video.time_base) * fps)
                frames[number] = frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError):  # no stream that could be recognized
        frames = {}
    return _filled(frames, len(film))[:, : film.shape[1], : film.shape[2]]


def _start(stream: bytes) -> tuple[int, bytes]:
    """Return the first frame's time stamp in a whole stream, and its parameter sets."""
    with av.open(BytesIO(stream), "r") as container:
        video = container.streams.video[0]
        stamps = [packet.pts for packet in container.demux(video) if packet.pts is not None]
        return min(stamps), video.codec_context.extradata or b""


def _filtered(
    packets: Iterator[Packet[VideoStream]], through: BitStreamFilterContext
) -> Iterator[Packet[VideoStream]]:
    """Yield packets as a filter gives them, and the empty one that ends a stream as it is."""
    for packet in packets:
        yield from through.filter(packet) if packet.size else [packet]


def _filled(frames: dict[int, np.ndarray], length: int) -> np.ndarray:
    """Return all frames of a clip; one that is missing shows the last before it, or the first."""
    known = sorted(number for number in frames if 0 <= number < length)
    if not known:
        raise UndecodableVideoError(
            "expected frames after damage in transmission; not one of the clip's "
            f"{length} can be decoded. Take a lower severity, or leave the clip out"
        )
    before = np.searchsorted(known, np.arange(length), side="right") - 1
    return np.stack([frames[known[max(place, 0)]] for place in before])
