"""Corruptions of clips at five levels: the twelve of Mini Kinetics-C, and changes of light."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from geonorm.datasets import clip_codecs, clip_weather
from geonorm.datasets.appearance_shift import AppearanceShift
from geonorm.names import choices

# Mini Kinetics-C's twelve, over which mPC is the mean.
MINI_KINETICS_C = (
    "shot_noise", "rain", "contrast", "brightness", "saturate", "motion_blur", "fog", "bit_error",
    "packet_loss", "h264_crf", "h265_crf", "frame_rate",
)  # fmt: skip
Corruption = Literal[
    "shot_noise", "rain", "contrast", "brightness", "saturate", "motion_blur", "fog", "bit_error",
    "packet_loss", "h264_crf", "h265_crf", "frame_rate", "h264_abr", "h265_abr", "gain", "gamma",
    "cast", "flicker", "blur", "linear_noise",
]  # fmt: skip
# Of a clip (T, H, W, 3) in [0, 1], its level 1 to 5, frames per second and random numbers.
_Change = Callable[[np.ndarray, int, float, np.random.Generator], np.ndarray]
# Electrons of noise in reading a pixel, whatever its light.
_READ_NOISE = 3.0


class ClipCorruption:
    """A corruption of a clip, a function of the clip, the level and the random numbers alone.

    The first twelve are Mini Kinetics-C's (Yi et al., NeurIPS Datasets and Benchmarks 2021), with
    its parameters; h264_abr and h265_abr are in its code too. On values x in [0, 1], levels 1 to 5:

    - shot_noise: Poisson(x c) / c, c = 60, 25, 12, 5, 3
    - rain: streaks of 10, 30, 60, 60, 80 of 224 rows, drawn per frame, and less contrast
    - contrast: (x − mean) c + mean, c = 0.5 to 0.1, the mean being each frame's and channel's
    - brightness: 0.1 to 0.5 more of the V of HSV
    - saturate: S of HSV times 0.3, 0.1, 2, 5, 20 plus 0, 0, 0, 0.1, 0.2
    - motion_blur: mean of the c frames before and the c from a frame on, c = 3, 5, 7, 9, 11
    - fog: a plasma of strength 1.5 to 3, one for the whole clip
    - bit_error: H.264 with one byte in 100,000, 50,000, 30,000, 20,000, 10,000 wrong
    - packet_loss: H.264 without 1, 2, 3, 4, 6 % of its transport packets
    - h264_crf, h265_crf: quality 23, 30, 37, 44, 51 and 27, 33, 39, 45, 51
    - h264_abr, h265_abr: 1/2 to 1/32 of the bits per second of H.264 at quality 23
    - frame_rate: 20, 16, 12, 9, 6 frames per second, each shown until the next
    - gain: all values times or through 2^(0.3 level)
    - gamma, cast, blur: :class:`AppearanceShift`'s
    - flicker: frame t times 1 + 0.1 level · sin(2π (f t + p)), f from 0.1 to 0.4, p at random
    - linear_noise: light (sRGB undone) as 800, 400, 200, 100, 50 electrons at white, with their
      shot noise and 3 electrons of read noise

    The benchmark corrupts whole videos, 224² pixels large, and then takes frames; this class takes
    the clip for the whole video. Lengths of streaks and the plasma grow and shrink with the frame.
    motion_blur cuts its windows at the ends, where the benchmark drops the frames. Frames that a
    damaged stream does not give show the last one before them. Results are rounded, the
    benchmark's cut off.

    Args:
        name: one of the above.
        severity: 1 to 5, or 0 for the clip as it is.
        fps: frames per second of the clips, for frame_rate and the codecs.

    Shape:
        uint8 (T, 3, H, W) to the same.

    Raises:
        ValueError: an unknown name or severity, or a rate that is not above 0.

    >>> rain = ClipCorruption("rain", severity=5)
    >>> rain(torch.zeros(8, 3, 32, 32, dtype=torch.uint8), np.random.default_rng(0)).shape
    torch.Size([8, 3, 32, 32])
    """

    def __init__(self, name: Corruption, severity: int = 3, fps: float = 25.0) -> None:
        if name not in get_args(Corruption):
            raise ValueError(f"corruption {name!r} is unknown; {choices(name, _CHANGES)}")
        if severity not in range(6):
            raise ValueError(f"severity must be 0, 1, 2, 3, 4 or 5; got {severity}")
        if not fps > 0:
            raise ValueError(f"fps must be above 0 frames per second; got {fps}")
        self.name, self.severity, self.fps = name, severity, fps

    def __repr__(self) -> str:
        return f"ClipCorruption({self.name!r}, severity={self.severity}, fps={self.fps})"

    def __call__(self, video: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the corrupted clip; the one given stays as it is.

        Raises:
            TypeError: the clip is not uint8.
            ValueError: it is not (T, 3, H, W) with at least one frame and 16 pixels each way.
            UndecodableVideoError: after bit errors or lost packets not one frame can be decoded.
        """
        if not isinstance(video, Tensor) or video.dtype != torch.uint8:
            kind = video.dtype if isinstance(video, Tensor) else type(video).__name__
            raise TypeError(f"expected a uint8 clip (T, 3, H, W); got {kind}. Corrupt first")
        shape = tuple(video.shape)
        if len(shape) != 4 or shape[1] != 3 or shape[0] < 1 or min(shape[2:]) < 16:
            raise ValueError(
                f"expected a clip (T, 3, H, W) of at least 1 frame and 16 by 16 pixels; got {shape}"
            )
        if not self.severity:
            return video.clone()
        film = video.permute(0, 2, 3, 1).contiguous().numpy()
        changed = _CHANGES[self.name](film / np.float32(255), self.severity, self.fps, rng)
        values = (changed.clip(0, 1) * 255).round().astype(np.uint8)
        return torch.from_numpy(values).permute(0, 3, 1, 2).contiguous()


def _shot_noise(
    film: np.ndarray, severity: int, fps: float, rng: np.random.Generator
) -> np.ndarray:
    photons = (60, 25, 12, 5, 3)[severity - 1]
    counts: np.ndarray = rng.poisson(film * photons)
    return counts / photons


def _contrast(film: np.ndarray, severity: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    return clip_weather.less_contrast(film, (0.5, 0.4, 0.3, 0.2, 0.1)[severity - 1])


def _brightness(
    film: np.ndarray, severity: int, fps: float, rng: np.random.Generator
) -> np.ndarray:
    """Raise V, hue and saturation kept: all channels grow in proportion, and black turns grey."""
    value = film.max(-1, keepdims=True)
    raised = (value + severity / 10).clip(0, 1)
    brighter: np.ndarray = np.where(value > 0, film / np.maximum(value, 1e-9), 1) * raised
    return brighter


def _saturate(film: np.ndarray, severity: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    """Change S, hue and V kept: what each channel lacks to the largest grows in proportion.

    The hue of grey is red, as in every conversion to HSV, so where a constant is added grey turns
    reddish, as it does in the benchmark.
    """
    factor, constant = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))[severity - 1]
    value = film.max(-1, keepdims=True)
    lacking = value - film
    most = lacking.max(-1, keepdims=True)
    saturation = most / np.maximum(value, 1e-9)
    share = np.where(most > 0, lacking / np.maximum(most, 1e-9), np.array([0, 1, 1]))
    saturated: np.ndarray = value - value * (saturation * factor + constant).clip(0, 1) * share
    return saturated


def _motion_blur(
    film: np.ndarray, severity: int, fps: float, rng: np.random.Generator
) -> np.ndarray:
    reach = (3, 5, 7, 9, 11)[severity - 1]
    sums = np.concatenate([np.zeros_like(film[:1], np.float64), film.cumsum(0, np.float64)])
    places = np.arange(len(film))
    first, last = (places - reach).clip(0), (places + reach).clip(None, len(film))
    means: np.ndarray = (sums[last] - sums[first]) / (last - first)[:, None, None, None]
    return means


def _frame_rate(
    film: np.ndarray, severity: int, fps: float, rng: np.random.Generator
) -> np.ndarray:
    """Show each frame of a lower rate until the next, which keeps a clip of a lower one still."""
    rate = (20, 16, 12, 9, 6)[severity - 1]
    shown = np.floor(np.arange(len(film)) * rate / fps + 1e-9)
    held: np.ndarray = film[np.ceil(shown * fps / rate - 1e-9).astype(int)]
    return held


def _codec(
    film: np.ndarray, severity: int, fps: float, rng: np.random.Generator,
    *, name: str, qualities: tuple[int, ...],
) -> np.ndarray:
    return _coded(clip_codecs.compressed, film, fps, name, crf=str(qualities[severity - 1]))


def _bit_rate(
    film: np.ndarray, severity: int, fps: float, rng: np.random.Generator, *, name: str
) -> np.ndarray:
    # The encoders count in thousands of bits per second, and refuse none.
    bits = str(max(int(clip_codecs.bit_rate(_bytes(film), fps) / 2**severity), 1000))
    return _coded(clip_codecs.compressed, film, fps, name, b=bits, maxrate=bits, bufsize=bits)


def _bit_error(film: np.ndarray, severity: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    interval = (100_000, 50_000, 30_000, 20_000, 10_000)[severity - 1]
    return _coded(clip_codecs.with_bit_errors, film, fps, interval)


def _packet_loss(
    film: np.ndarray, severity: int, fps: float, rng: np.random.Generator
) -> np.ndarray:
    share = (0.01, 0.02, 0.03, 0.04, 0.06)[severity - 1]
    return _coded(clip_codecs.with_packet_loss, film, fps, share, rng)


def _coded(
    through: Callable[..., np.ndarray], film: np.ndarray, *args: object, **options: str
) -> np.ndarray:
    return through(_bytes(film), *args, **options) / np.float32(255)


def _bytes(film: np.ndarray) -> np.ndarray:
    values: np.ndarray = (film * 255).round().astype(np.uint8)
    return values


def _gain(film: np.ndarray, severity: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    return film * np.float32(2 ** (0.3 * severity * rng.choice((-1, 1))))


def _flicker(film: np.ndarray, severity: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    frequency, phase = rng.uniform(0.1, 0.4), rng.random()
    turns = frequency * np.arange(len(film)) + phase
    gains = 1 + 0.1 * severity * np.sin(2 * np.pi * turns)
    lit: np.ndarray = film * gains[:, None, None, None]
    return lit


def _linear_noise(
    film: np.ndarray, severity: int, fps: float, rng: np.random.Generator
) -> np.ndarray:
    white = (800, 400, 200, 100, 50)[severity - 1]
    electrons = rng.poisson(linear_light(film) * white) + _READ_NOISE * rng.standard_normal(
        film.shape, dtype=np.float32
    )
    return display_values((electrons / white).clip(0, 1))


def linear_light(values: np.ndarray) -> np.ndarray:
    """Return the light, in [0, 1], that sRGB values stand for (IEC 61966-2-1, 1999)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def display_values(light: np.ndarray) -> np.ndarray:
    """Return the sRGB values of light in [0, 1], the inverse of :func:`linear_light`."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def _appearance(
    film: np.ndarray, severity: int, fps: float, rng: np.random.Generator,
    *, kind: Literal["gamma", "cast", "blur"],
) -> np.ndarray:
    clip = torch.from_numpy(_bytes(film)).permute(0, 3, 1, 2)
    shifted = AppearanceShift(kind, severity)(clip, rng)
    return shifted.permute(0, 2, 3, 1).numpy() / np.float32(255)


_CHANGES: dict[str, _Change] = {
    "shot_noise": _shot_noise,
    "rain": clip_weather.rain,
    "contrast": _contrast,
    "brightness": _brightness,
    "saturate": _saturate,
    "motion_blur": _motion_blur,
    "fog": clip_weather.fog,
    "bit_error": _bit_error,
    "packet_loss": _packet_loss,
    "h264_crf": partial(_codec, name="libx264", qualities=(23, 30, 37, 44, 51)),
    "h265_crf": partial(_codec, name="libx265", qualities=(27, 33, 39, 45, 51)),
    "frame_rate": _frame_rate,
    "h264_abr": partial(_bit_rate, name="libx264"),
    "h265_abr": partial(_bit_rate, name="libx265"),
    "gain": _gain,
    "gamma": partial(_appearance, kind="gamma"),
    "cast": partial(_appearance, kind="cast"),
    "flicker": _flicker,
    "blur": partial(_appearance, kind="blur"),
    "linear_noise": _linear_noise,
}
