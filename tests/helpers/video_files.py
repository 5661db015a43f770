"""Small videos whose frames carry their number, and ways to break them."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

BITS = 6


def numbered_film(frames: int, height: int = 48, width: int = 96) -> np.ndarray:
    """Return uint8 (T, H, W, 3): bars spell each frame's number, a bright corner marks the top."""
    film = np.zeros((frames, height, width, 3), np.uint8)
    bar = width // BITS
    for number in range(frames):
        for bit in range(BITS):
            if number >> bit & 1:
                film[number, :, bit * bar : (bit + 1) * bar] = 200
    film[:, : height // 4] = film[:, : height // 4] // 2 + (120, 0, 0)
    return film.astype(np.uint8)


def numbers_of(film: np.ndarray) -> list[int]:
    """Read the numbers back from the lower half of decoded frames of any size."""
    height, width = film.shape[1:3]
    middles = [int((bit + 0.5) * width / BITS) for bit in range(BITS)]
    bits = film[:, height * 3 // 4, middles].mean(-1) > 100
    return [int(sum(1 << bit for bit in range(BITS) if row[bit])) for row in bits]


def is_upright(film: np.ndarray) -> bool:
    """Tell whether the reddish quarter is on top."""
    height = film.shape[1]
    red = film[..., 0].astype(int) - film[..., 2]
    return bool(red[:, : height // 5].mean() > 80 and abs(red[:, height // 3 :].mean()) < 20)


def encode(
    path: Path,
    film: np.ndarray,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    rate: int | None = None,
    rotation: int = 0,
) -> Path:
    """Write a film at ``rate``; ``times`` are the frames' places in units of it.

    The rate is 25 by default, or 100 with times.
    """
    rate = rate or (25 if times is None else 100)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = film.shape[1:3] if len(film) else (48, 96)
        stream.pix_fmt = "yuv420p"
        stream.options = options or {}
        if rotation:
            stream.set_display_rotation(rotation)
        container.start_encoding()
        for number, picture in enumerate(film):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times is not None:
                frame.pts = times[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def noisy_film(frames: int = 40) -> np.ndarray:
    """Return a film that needs many bytes in every frame, so that damage always hits pictures."""
    return np.random.default_rng(0).integers(0, 255, (frames, 48, 96, 3)).astype(np.uint8)


def truncate(path: Path, share: float) -> Path:
    """Keep the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def damage(path: Path, start: float = 0.4, length: float = 0.2) -> Path:
    """Overwrite a part of a file with noise."""
    data = bytearray(path.read_bytes())
    first, count = int(len(data) * start), int(len(data) * length)
    data[first : first + count] = np.random.default_rng(0).bytes(count)
    path.write_bytes(data)
    return path


def headers_only(path: Path, film: np.ndarray) -> Path:
    """Write a file that opens and promises frames, of which none can be decoded."""
    encode(path, film, container_options={"movflags": "faststart"})
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    path.write_bytes(data[:start] + bytes(len(data) - start))
    return path


def sound(path: Path) -> Path:
    """Write a file of silence without a picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for number in range(8):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 16000, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
