"""Drawing one short film of a shape in motion; how it looks says nothing of how it moves.

The picture is a torus: what leaves on the right comes in on the left. Place, angle and size of the
shape are evenly distributed in every single frame of every motion, so no frame tells the class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_SMALLEST, _LARGEST = np.log(0.65), np.log(1.25)
_TURN = 2 * np.pi


@dataclass
class Pose:
    """Place, angle and size of the shape in each frame; float (T,) each.

    Args:
        x: rightward, in widths of the picture, modulo 1.
        y: downward, in heights, modulo 1.
        angle: clockwise as seen, in radians.
        size: in [0, 1), modulo 1, from the smallest to the largest evenly in its logarithm.
    """

    x: np.ndarray
    y: np.ndarray
    angle: np.ndarray
    size: np.ndarray


@dataclass(frozen=True)
class Beat:
    """Speed, reach and phase of a motion; drawn alike for every one.

    Args:
        clock: float (T,), frames since the first one times the speed.
        reach: length of a bounce or a swing, in pictures.
        phase: of a period, in [0, 1).
    """

    clock: np.ndarray
    reach: float
    phase: float

    def bounce(self) -> np.ndarray:
        """Return the height over the floor: parabolas between elastic impacts."""
        phase = (self.phase + self.clock / 14) % 1
        return self.reach * 4 * phase * (1 - phase)

    def swing(self) -> np.ndarray:
        """Return a way gone in a quarter of the period and taken back in the rest of it."""
        phase = (self.phase + self.clock / 14) % 1
        return self.reach * np.where(phase < 0.25, 4 * phase, (1 - phase) / 0.75)


def _glide(x: float, y: float) -> Callable[[Pose, Beat], None]:
    def move(pose: Pose, beat: Beat) -> None:
        pose.x = pose.x + 0.03 * x * beat.clock
        pose.y = pose.y + 0.03 * y * beat.clock

    return move


def _turn(direction: int) -> Callable[[Pose, Beat], None]:
    def move(pose: Pose, beat: Beat) -> None:
        pose.angle = pose.angle + direction * 0.13 * beat.clock

    return move


def _zoom(direction: int) -> Callable[[Pose, Beat], None]:
    def move(pose: Pose, beat: Beat) -> None:
        pose.size = pose.size + direction * beat.clock / 28

    return move


def _bounce(direction: int) -> Callable[[Pose, Beat], None]:
    def move(pose: Pose, beat: Beat) -> None:
        pose.y = pose.y + direction * beat.bounce()

    return move


def _swing(direction: int) -> Callable[[Pose, Beat], None]:
    def move(pose: Pose, beat: Beat) -> None:
        pose.x = pose.x + direction * beat.swing()

    return move


# Neighbours are each other's reverse.
MOTIONS: dict[str, Callable[[Pose, Beat], None]] = {
    "move left": _glide(-1, 0),
    "move right": _glide(1, 0),
    "move up": _glide(0, -1),
    "move down": _glide(0, 1),
    "turn clockwise": _turn(1),
    "turn anticlockwise": _turn(-1),
    "zoom in": _zoom(1),
    "zoom out": _zoom(-1),
    "bounce on the floor": _bounce(-1),
    "bounce on the ceiling": _bounce(1),
    "jerk right": _swing(1),
    "jerk left": _swing(-1),
}


def draw_action(
    motion: str, rng: np.random.Generator, frames: int = 24, size: int = 72
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a film of a random shape on a random ground in a given motion.

    Args:
        motion: a key of ``MOTIONS``.
        rng: draws appearance, first pose, speed and phase; for every motion the same ones.
        frames: length of the film.
        size: side of the square picture, pixels.

    Returns:
        uint8 (T, size, size, 3) RGB, and float32 (T, size, size), the share of the shape in each
        pixel.
    """
    pose = Pose(*(np.full(frames, start) for start in rng.random(4) * (1, 1, _TURN, 1)))
    beat = Beat(rng.uniform(0.7, 1.4) * np.arange(frames), rng.uniform(0.2, 0.32), rng.random())
    MOTIONS[motion](pose, beat)
    colours = _colours(rng)
    right, down, scale = _own_coordinates(pose, rng.uniform(0.28, 0.36), size)
    # Nothing of a shape lies beyond 1.4 of its radius: the rest of the picture is ground alone.
    near = np.flatnonzero(right * right + down * down < 1.4**2)
    right, down = right.ravel()[near], down.ravel()[near]
    pixels = (scale.ravel() * size)[near // size**2]
    cover = np.zeros(frames * size * size, np.float32)
    cover[near] = _cover(right, down, pixels, rng)
    shape = _blend(colours[0], colours[1], _texture(right, down, rng))
    marker = np.clip((0.3 - np.hypot(right - 0.42, down)) * pixels + 0.5, 0, 1)
    shape = shape + marker[:, None] * (colours[2] - shape)
    ground = _ground(colours[3], colours[4], size, rng).reshape(-1, 3)
    light = _light(size, rng).reshape(-1, 1)
    film = np.tile(_to_bytes(ground * light), (frames, 1))
    places = near % size**2
    film[near] = _to_bytes(_blend(ground[places], shape, cover[near]) * light[places])
    return film.reshape(frames, size, size, 3), cover.reshape(frames, size, size)


def _to_bytes(picture: np.ndarray) -> np.ndarray:
    """Return values from 0 to 1 as bytes."""
    values: np.ndarray = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
    return values


def _colours(rng: np.random.Generator) -> np.ndarray:
    """Draw the shape's two colours, its marker's and the ground's two, the grounds standing off."""
    while True:
        colours = rng.random((5, 3), dtype=np.float32)
        contrasts = np.abs(colours[:3, None] - colours[None, 3:]).mean(-1)
        if contrasts.min() > 0.2 and np.abs(colours[2] - colours[:2]).mean(-1).min() > 0.25:
            return colours


def _own_coordinates(
    pose: Pose, radius: float, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return every pixel's coordinates in the shape's own frame, and the scale, (T, 1, 1)."""
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size
    sizes = _SMALLEST + (pose.size % 1) * (_LARGEST - _SMALLEST)
    scale = (radius * np.exp(sizes)).astype(np.float32)[:, None, None]
    x = (centres[None, None, :] - pose.x.astype(np.float32)[:, None, None] + 0.5) % 1 - 0.5
    y = (centres[None, :, None] - pose.y.astype(np.float32)[:, None, None] + 0.5) % 1 - 0.5
    cos = np.cos(pose.angle).astype(np.float32)[:, None, None] / scale
    sin = np.sin(pose.angle).astype(np.float32)[:, None, None] / scale
    return cos * x + sin * y, cos * y - sin * x, scale


def _cover(
    right: np.ndarray, down: np.ndarray, pixels: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the share of each pixel that a random outline covers; edges are one pixel soft."""
    flat = rng.uniform(0.6, 1.0)
    across = down / np.float32(flat)
    bearing = np.arctan2(across, right)
    corners = int(rng.integers(3, 7))
    if rng.random() < 0.5:
        wedge = _TURN / corners
        outline = np.cos(wedge / 2) / np.cos((bearing % wedge) - wedge / 2)
    else:
        outline = 0.8 + rng.uniform(0.1, 0.25) * np.cos(corners * bearing)
    outline = outline * (1 + rng.uniform(0.0, 0.25) * np.cos(bearing + rng.uniform(0, _TURN)))
    distance = (outline - np.hypot(right, across)) * flat
    cover: np.ndarray = np.clip(distance * pixels + 0.5, 0, 1).astype(np.float32)
    return cover


def _texture(right: np.ndarray, down: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the second colour's share: plain, stripes, checks, or from one side to the other."""
    pattern = rng.integers(4)
    rate, start, tilt = rng.uniform(4, 9), rng.uniform(0, _TURN), rng.uniform(0, _TURN)
    along = (np.cos(tilt) * right + np.sin(tilt) * down).astype(np.float32)
    across = (np.cos(tilt) * down - np.sin(tilt) * right).astype(np.float32)
    if pattern == 0:
        share: np.ndarray = np.zeros_like(along)
    elif pattern == 1:
        share = 2 * np.sin(rate * along + start) + 0.5
    elif pattern == 2:
        share = 3 * np.sin(rate * along + start) * np.sin(rate * across) + 0.5
    else:
        share = 0.5 + 0.5 * along
    return share.clip(0, 1)


def _ground(
    first: np.ndarray, second: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the still ground (size, size, 3), of two colours: blotches, stripes or a slope."""
    grid = np.arange(size, dtype=np.float32) / size
    tilt, start = rng.uniform(0, _TURN), rng.uniform(0, _TURN)
    along = np.cos(tilt) * grid[None, :] + np.sin(tilt) * grid[:, None]
    pattern = rng.integers(3)
    if pattern == 0:
        share = np.zeros((size, size))
        for rate_x, rate_y, phase in rng.uniform((-12, -12, 0), (12, 12, _TURN), (4, 3)):
            share += np.sin(rate_x * grid[None, :] + rate_y * grid[:, None] + phase)
        share = 0.5 + share / 5
    elif pattern == 1:
        share = 1.5 * np.sin(rng.uniform(12, 40) * along + start) + 0.5
    else:
        share = 0.5 + 0.6 * along
    return _blend(first, second, 0.4 * np.clip(share, 0, 1).astype(np.float32))


def _light(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return the gain of each pixel, (size, size, 1): a level, and a slope over the picture."""
    grid = np.arange(size, dtype=np.float32) / size - 0.5
    tilt = rng.uniform(0, _TURN)
    slope = np.cos(tilt) * grid[None, :] + np.sin(tilt) * grid[:, None]
    gain: np.ndarray = rng.uniform(0.6, 1.1) * (1 + rng.uniform(0, 0.7) * slope)
    return gain[..., None].astype(np.float32)


def _blend(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return the mixture of two colours or two pictures, (..., 3)."""
    mixture: np.ndarray = first + share[..., None] * (second - first)
    return mixture
