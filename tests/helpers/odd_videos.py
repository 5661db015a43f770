"""Videos whose packets, headers and shown frames tell different things, written by PyAV alone."""

import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

from helpers.video_files import encode, numbered_film

FPS = 25
OPEN_GOPS = {"x264-params": "open-gop=1:keyint=20:min-keyint=20:scenecut=0:bframes=3"}
_PICTURE = b"\0\0\1\xb6"  # what begins one in MPEG-4
REFRESH = {"x264-params": "intra-refresh=1:keyint=10:scenecut=0:bframes=0"}


def remuxed(
    source: Path,
    path: Path,
    change: Callable[[list[av.Packet]], Iterable[av.Packet | bytes]],
    bitstream_filter: str | None = None,
) -> Path:
    """Write a file's packets after a change to their list; bytes take the place of a packet."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        packets = [packet for packet in old.demux(stream) if packet.size]
        if bitstream_filter:
            split = BitStreamFilterContext(bitstream_filter, stream)
            packets = [out for packet in packets for out in split.filter(packet)]
            for number, packet in enumerate(packets):
                packet.pts = packet.dts = number
                packet.time_base = stream.time_base
        stamps = [(packet.pts, packet.dts, packet.time_base) for packet in packets]
        for number, packet in enumerate(change(packets)):
            if isinstance(packet, bytes):
                packet = av.Packet(packet)
                packet.pts, packet.dts, packet.time_base = stamps[number]
            packet.stream = copy
            new.mux(packet)
    return path


def from_keyframe(
    number: int, skip: int = 0
) -> Callable[[list[av.Packet]], list[av.Packet]]:
    """Return a change that begins a stream at its keyframe of that number, or ``skip`` later."""

    def change(packets: list[av.Packet]) -> list[av.Packet]:
        keys = [place for place, packet in enumerate(packets) if packet.is_keyframe]
        return packets[keys[number] + skip :]

    return change


def edited(path: Path, edits: Sequence[tuple[int, int]]) -> Path:
    """Give an mp4 an edit list of (frames, first frame), the first -1 for a pause at the start.

    The list is rewritten in the bytes of the file, whose header lies behind the pictures.
    """
    data = path.read_bytes()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        ticks = stream.time_base.denominator // FPS
    moov = data.index(b"moov") - 4
    head, tail = data[:moov], bytearray(data[moov:])
    scale = struct.unpack(">I", tail[tail.index(b"mvhd") + 16 :][:4])[0]
    place = tail.index(b"elst")
    delay = max(struct.unpack(">i", tail[place + 16 :][:4])[0], 0)  # of the first frame shown
    old_size = struct.unpack(">I", tail[place - 4 : place])[0]
    rows = b"".join(
        struct.pack(">IiI", frames * scale // FPS, -1 if at < 0 else delay + at * ticks, 1 << 16)
        for frames, at in edits
    )
    box = struct.pack(">I4sII", 16 + len(rows), b"elst", 0, len(edits)) + rows
    for name in (b"moov", b"trak", b"edts"):
        at = tail.index(name) - 4
        size = struct.unpack(">I", tail[at : at + 4])[0]
        tail[at : at + 4] = struct.pack(">I", size + len(box) - old_size)
    tail[place - 4 : place - 4 + old_size] = box
    path.write_bytes(head + bytes(tail))
    return path


def oriented(path: Path, film: np.ndarray, matrix: Sequence[float]) -> Path:
    """Write a film without loss, with a display matrix (a, b, c, d)."""
    a, b, c, d = (int(value * 65536) for value in matrix)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "0"})
        stream.height, stream.width = film.shape[1:3]
        stream.pix_fmt = "yuv444p"
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for picture in film:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def gif(path: Path, film: np.ndarray, times: Sequence[int]) -> Path:
    """Write a GIF; ``times`` are the frames' places in hundredths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("gif", rate=100)
        stream.height, stream.width = film.shape[1:3]
        stream.pix_fmt = "rgb8"
        for time, picture in zip(times, film, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="rgb8")
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _not_coded(number: int) -> bytes:
    """Return an MPEG-4 packet that says the picture before it stays (ISO 14496-2, vop_coded 0)."""
    bits = "01" + "0" + "1" + f"{number % FPS:05b}" + "1" + "0"
    bits += "0" + "1" * (-len(bits) - 1 & 7)
    return _PICTURE + int(bits, 2).to_bytes(len(bits) // 8, "big")


def _staying(packets: list[av.Packet]) -> Iterable[av.Packet | bytes]:
    """Replace every fifth packet, no keyframe among them, by one without a picture."""
    for number, packet in enumerate(packets):
        yield _not_coded(number) if number % 5 == 3 else packet


def _hidden(packets: list[av.Packet]) -> Iterable[av.Packet | bytes]:
    """Say of every sixth packet of VP8, no keyframe among them, that it is not shown."""
    for number, packet in enumerate(packets):
        data = bytes(packet)
        hides = number % 6 == 4 and not packet.is_keyframe
        yield bytes([data[0] & ~0x10]) + data[1:] if hides else packet


def _packed(packets: list[av.Packet]) -> Iterable[bytes]:
    """Store each B-frame with the frame before it, and a packet without a picture in its place.

    DivX did so, to give every packet of an AVI file a frame to come out, and says so in its mark.
    """
    data = [bytes(packet) for packet in packets]
    start = data[0].index(_PICTURE)
    data[0] = data[0][:start] + b"\0\0\1\xb2DivX503b1393p" + data[0][start:]
    backwards = [one[one.index(_PICTURE) + 4] >> 6 == 2 for one in data]
    for number, one in enumerate(data):
        if backwards[number]:
            yield _not_coded(number)
        else:
            yield one + (data[number + 1] if [*backwards, False][number + 1] else b"")


def _equally_long(packets: list[av.Packet]) -> Iterable[bytes]:
    """Fill up every packet with zeros, which decoders pass over."""
    longest = max(packet.size for packet in packets)
    return (bytes(packet).ljust(longest, b"\0") for packet in packets)


def _skipping(packets: list[av.Packet]) -> Iterable[av.Packet]:
    """Stretch the decode times, as a camera that skips frames does: AVI fills them up."""
    times = np.cumsum([0, *(1 + (number % 3 == 1) for number in range(len(packets) - 1))])
    for time, packet in zip(times.tolist(), packets, strict=True):
        packet.pts = packet.dts = time
        yield packet


def _with_unseen(path: Path) -> Path:
    """Write 60 frames of VP9, some of which are packed with one that is only referred to."""
    picture = np.random.default_rng(0).integers(0, 255, (6, 12, 3)).repeat(8, 0).repeat(8, 1)
    film = np.stack([np.roll(picture, number, 1) for number in range(60)]).astype(np.uint8)
    options = {"lag-in-frames": "25", "deadline": "realtime", "cpu-used": "5", "b": "100k"}
    return encode(path, film, codec="libvpx-vp9", options=options)


def _behind_edits(edits: Sequence[tuple[int, int]], bframes: int) -> Callable[[Path], Path]:
    """Return a writer of 60 numbered frames behind an edit list."""

    def write(folder: Path) -> Path:
        options = {"g": "5", "keyint_min": "5", "sc_threshold": "0", "bf": str(bframes)}
        return edited(encode(folder / "a.mp4", numbered_film(60), options=options), edits)

    return write


def _changed(
    source: str,
    codec: str,
    options: dict[str, str],
    target: str,
    change: Callable[[list[av.Packet]], Iterable[av.Packet | bytes]],
) -> Callable[[Path], Path]:
    """Return a writer of 60 numbered frames after a change to their packets; suffixes are given."""

    def write(folder: Path) -> Path:
        whole = encode(folder / f"whole{source}", numbered_film(60), codec=codec, options=options)
        return remuxed(whole, folder / f"a{target}", change)

    return write


def _opened(source: str, codec: str, options: dict[str, str], target: str, skip: int = 0) -> object:
    """Return a writer of what is left from a keyframe, or from ``skip`` packets after it."""
    return _changed(source, codec, options, target, from_keyframe(0 if skip else 1, skip))


EDITS = {
    "begins and ends between keyframes": [(20, 28)],
    "ends early": [(15, 0)],
    "begins at a keyframe": [(13, 20)],
    "two parts": [(10, 13), (10, 43)],
    # Behind it, the keyframe of that number among all packets is five packets early.
    "a GOP of packets not shown": [(10, 10), (10, 44)],
    "a part twice": [(10, 10), (10, 10)],
    "parts in another order": [(10, 40), (10, 10)],
    "begins with a pause": [(5, -1), (13, 27)],
}
_MPEG2 = {"g": "12", "bf": "2"}
_X265 = {"x265-params": "open-gop=1:keyint=20:min-keyint=20:scenecut=0:bframes=3:log-level=none"}
# Writers of files of which fewer packets are shown than stored, each in a folder.
ODD: dict[str, Callable[[Path], Path]] = {
    **{
        f"edit list, {bframes} B-frames: {name}": _behind_edits(edits, bframes)
        for name, edits in EDITS.items()
        for bframes in (0, 3)
    },
    "open GOP, h264 in mp4": _opened(".mp4", "libx264", OPEN_GOPS, ".mp4"),
    "open GOP, h264 in mkv": _opened(".mp4", "libx264", OPEN_GOPS, ".mkv"),
    "open GOP, h264 in ts": _opened(".ts", "libx264", OPEN_GOPS, ".ts"),
    "open GOP, h265 in mkv": _opened(".mp4", "libx265", _X265, ".mkv"),
    "open GOP, mpeg2 in ts": _opened(".ts", "mpeg2video", _MPEG2, ".ts"),
    "open GOP, mpeg2 in mpg": _opened(".ts", "mpeg2video", _MPEG2, ".mpg"),
    "open GOP, mpeg4 in avi": _opened(".avi", "mpeg4", _MPEG2, ".avi"),
    "no keyframe first, ts": _opened(".ts", "libx264", OPEN_GOPS, ".ts", 7),
    "no keyframe first, mkv": _opened(".mp4", "libx264", OPEN_GOPS, ".mkv", 7),
    "no keyframe first, avi": _opened(".avi", "mpeg4", _MPEG2, ".avi", 5),
    "refreshed bit by bit, mp4": _opened(".mp4", "libx264", REFRESH, ".mp4"),
    "refreshed bit by bit, ts": _opened(".ts", "libx264", REFRESH, ".ts"),
    "hidden frames, vp8 in webm": _changed(
        ".webm", "libvpx", {"lag-in-frames": "0"}, ".webm", _hidden
    ),
    "hidden frames, vp8 in avi": _changed(
        ".avi", "libvpx", {"lag-in-frames": "0"}, ".avi", _hidden
    ),
    "hidden frames, vp9 in avi": lambda folder: remuxed(
        _with_unseen(folder / "whole.webm"), folder / "a.avi", list, "vp9_superframe_split"
    ),
    "pictures that stay, avi": _changed(".avi", "mpeg4", {"g": "12"}, ".avi", _staying),
    "pictures that stay, mp4": _changed(".avi", "mpeg4", {"g": "12"}, ".mp4", _staying),
}
# Writers of files that are as unusual, but of which every packet is shown.
WHOLE: dict[str, Callable[[Path], Path]] = {
    "edit list: a pause, then all": _behind_edits([(5, -1), (60, 0)], 3),
    "last B-frames missing, mp4": _changed(
        ".mp4", "libx264", {"g": "20"}, ".mp4", lambda packets: packets[:-2]
    ),
    "last B-frames missing, mkv": _changed(
        ".mp4", "libx264", {"g": "20"}, ".mkv", lambda packets: packets[:-2]
    ),
    "frames packed together, vp9 in webm": lambda folder: _with_unseen(folder / "a.webm"),
    "B-frames packed with others, avi": _changed(
        ".avi", "mpeg4", {"g": "12", "bf": "1", "b_strategy": "0"}, ".avi", _packed
    ),
    "packets equally long, avi": _changed(".avi", "mpeg4", {"g": "12"}, ".avi", _equally_long),
    "empty packets, avi": _changed(".avi", "mpeg4", {"g": "12"}, ".avi", _skipping),
    "empty packets, avi with B-frames": _changed(".avi", "mpeg4", _MPEG2, ".avi", _skipping),
}
# The same with zeros behind them, so that only decoding tells.
STAYING_UNSEEN = _changed(
    ".avi", "mpeg4", {"g": "12"}, ".avi",
    lambda packets: [one if isinstance(one, av.Packet) else one.ljust(20, b"\0")
                     for one in _staying(packets)],
)  # fmt: skip
