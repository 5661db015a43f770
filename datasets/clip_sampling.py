"""Choose the frames of a clip: at random, spread over the video, in dense views, or one alone.

Every function returns int64 frame numbers in [0, frames). A clip longer than its video loops: after
the last frame comes the first one again.

A video of variable rate is given by ``times``, seconds from its first frame to each. Steps are then
seconds too, and a clip has the frames that are on the screen at its moments.
"""

from __future__ import annotations

import numpy as np

# Time stamps are rounded, in Matroska to milliseconds: a frame so much too late is on time.
_ROUNDING = 1e-3


def random_clip(
    frames: int,
    length: int,
    step: float,
    rng: np.random.Generator,
    times: np.ndarray | None = None,
) -> np.ndarray:
    """Return ``length`` frames ``step`` apart from a start drawn evenly from all that fit.

    Args:
        frames: number of frames in the video.
        length: number of frames in the clip.
        step: frames from one to the next, a fraction resamples the frame rate; seconds with
            ``times``.
        rng: draws the start.
        times: of the frames, in seconds, where the rate varies.

    Raises:
        ValueError: ``frames`` or ``length`` below 1, or ``step`` not above 0.
    """
    _check(frames, length, step)
    start = int(rng.integers(_room(frames, length, step, times) + 1))
    return _looped(frames, start, length, step, times)


def uniform_clip(frames: int, length: int) -> np.ndarray:
    """Return the middle frames of ``length`` equal parts of the video (TSN, Wang et al. 2016).

    A video shorter than the clip shows some frames more than once, in order.

    Raises:
        ValueError: ``frames`` or ``length`` below 1.

    >>> uniform_clip(frames=12, length=4).tolist()
    [1, 4, 7, 10]
    """
    _check(frames, length, 1.0)
    return ((2 * np.arange(length) + 1) * frames // (2 * length)).astype(np.int64)


def segment_clip(frames: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Return a frame from each of ``length`` equal parts of the video, drawn evenly from the part.

    It is what training takes where testing takes :func:`uniform_clip`. A video shorter than the
    clip shows some frames more than once, in order.

    Raises:
        ValueError: ``frames`` or ``length`` below 1.
    """
    _check(frames, length, 1.0)
    drawn = (np.arange(length) + rng.random(length)) * frames / length
    return np.minimum(drawn.astype(np.int64), frames - 1)


def dense_clip(
    frames: int,
    length: int,
    step: float,
    view: int,
    views: int,
    times: np.ndarray | None = None,
) -> np.ndarray:
    """Return view number ``view`` of ``views`` whose starts are spread evenly over the video.

    One view alone is the middle one. ``times`` are as in :func:`random_clip`.

    Raises:
        ValueError: as :func:`random_clip`, or ``view`` is not in [0, views).

    >>> [dense_clip(frames=10, length=4, step=1, view=view, views=3)[0].item() for view in range(3)]
    [0, 3, 6]
    """
    _check(frames, length, step)
    if not 0 <= view < views:
        raise ValueError(f"view must be in [0, {views}); got {view}")
    room = _room(frames, length, step, times)
    start = room // 2 if views == 1 else round(room * view / (views - 1))
    return _looped(frames, start, length, step, times)


def still_clip(frames: int, length: int) -> np.ndarray:
    """Return the middle frame ``length`` times: a clip of the same appearance without motion.

    Raises:
        ValueError: ``frames`` or ``length`` below 1.
    """
    _check(frames, length, 1.0)
    return np.full(length, frames // 2, dtype=np.int64)


def _room(frames: int, length: int, step: float, times: np.ndarray | None) -> int:
    """Return the last frame from which a clip ends within the video, or 0."""
    if times is not None:
        latest = times[-1] - (length - 1) * step + _ROUNDING
        return max(int(np.searchsorted(times, latest, side="right")) - 1, 0)
    return max(frames - 1 - int((length - 1) * step), 0)


def _looped(
    frames: int, start: int, length: int, step: float, times: np.ndarray | None
) -> np.ndarray:
    """Return the frame numbers from ``start``, past the end from the beginning again."""
    steps = np.arange(length) * step
    if times is None:
        numbers: np.ndarray = (start + np.floor(steps).astype(np.int64)) % frames
    else:
        duration = times[-1] * frames / (frames - 1)  # the last frame stays for a mean interval
        moments = (times[start] + steps) % duration
        numbers = np.searchsorted(times, moments + _ROUNDING, side="right") - 1
    return numbers


def _check(frames: int, length: int, step: float) -> None:
    """Refuse what no clip can be drawn from."""
    if frames < 1 or length < 1:
        raise ValueError(f"expected a video and a clip of at least 1 frame; got {frames}, {length}")
    if not step > 0:
        raise ValueError(f"step must be above 0 frames; got {step}")
