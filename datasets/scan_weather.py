"""What fog, snow and wet ground do to the returns of a LiDAR."""

from functools import cache
from typing import NamedTuple

import numpy as np

from geonorm.datasets.scan import Scan

LIGHT = 299_792_458.0  # metres per second
# Extinction of fog in 1/m, of which a scan has one: none, and visibilities of 600 to 50 m.
EXTINCTIONS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.06)
_PULSE = 20e-9  # seconds at half its power
# Share of the light that a wall sends back into the sensor, beside which that of fog is counted.
_WALL = 1e-6 / np.pi
# Nearer than the first nothing comes back, from the second on all: the lenses' fields overlap.
_OVERLAP = (0.9, 1.0)
_NEAREST = _OVERLAP[0]
_FARTHEST, _STEP = 200.0, 0.1  # metres, of the table of fog's returns
_LEAST_NOISE = 1e-3  # metres, so that none is infinitely far
_DIVERGENCE = 0.003  # radians across a beam
_FLAKE = 0.003  # metres, by which snowfall is told in rain
_FLAKE_REFLECTIVITY = 0.9
_LARGEST_FLAKE = 0.02  # metres
_SNOW_DENSITY = 0.1  # of water's
_SECONDS_OF_MM = 3.6e6  # mm/h in m/s
_NEAR_FLAKES = 15.0  # metres up to which flakes are drawn one by one
_WEAKEST = 0.01  # share of the returns of a clear scan that are below the sensor's threshold
_REFRACTION = 1.0003, 1.33  # of air and of water
_POWER = 15  # times what dry ground returns, that the laser sends
_LEAST_REFLECTIVITY = 0.05
_PAVEMENT = 1.2  # millimetres of water that fill the pavement's texture
_FEWEST_GROUND_POINTS = 1000
_LEAST_COSINE = 1e-3


class Seen(NamedTuple):
    """What a sensor sees in place of a scan.

    Attributes:
        points, intensity: (N, 3) and (N,) float32, the strongest return of each beam.
        moved: (N,) bool, those that come from the air.
        lost: (N,) bool, those too weak to be noticed.
    """

    points: np.ndarray
    intensity: np.ndarray
    moved: np.ndarray
    lost: np.ndarray


@cache
def fog_return(alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Return how strong the strongest return of fog before a wall is, and from how far it comes.

    The pulse sin²(π t / 2τ), τ = 20 ns, lasts 2τ, so that at once light comes back from c τ = 6 m
    of fog: at distance R, over β and the sensor's constant,

        ∫₀^2τ sin²(π t / 2τ) ξ(r) exp(−2 α r) / r² dt,   r = R − c t / 2 < R₀,

    with the overlap ξ of the sensor's two lenses.

    Args:
        alpha: extinction of the fog, 1/m.

    Shape:
        - result: (2001,) each, for walls at R₀ = 0, 0.1, …, 200 m: the largest value over R up to
          R₀, in s/m², and its R in metres

    Source: Hahner et al., "Fog Simulation on Real LiDAR Point Clouds", 2021, equations 10 to 16.
    """
    reach = np.arange(0, _FARTHEST + _STEP / 2, _STEP)
    times = np.linspace(0, 2 * _PULSE, 401)
    pulse = np.sin(np.pi * times / (2 * _PULSE)) ** 2
    r = reach[:, None] - LIGHT * times / 2
    near, all_of_it = _OVERLAP
    overlap = ((r - near) / (all_of_it - near)).clip(0, 1)
    response = pulse * overlap * np.exp(-2 * alpha * r.clip(min=0)) / r.clip(min=near) ** 2
    power = np.trapezoid(response, times, axis=1)
    best = np.maximum.accumulate(power)
    first = np.where(power >= best, np.arange(len(power)), 0)
    return best, reach[np.maximum.accumulate(first)]


def in_fog(scan: Scan, alpha: float, beta: float, rng: np.random.Generator) -> Seen:
    """Return what a sensor sees of a scan through fog: each point, or the fog before it.

    A point at range R₀ returns i exp(−2 α R₀). Where the fog before it returns more, the sensor
    sees that instead, at the distance R of `fog_return`, times R₀ / U(R₀ − 10, R₀ + 10) so that it
    does not lie on a sphere; before 10 m it can so come from behind. Intensities are not cut off.

    Args:
        scan: in clear air.
        alpha: extinction, 1/m; β is 0.046 of the same visibility's, where both are of one fog.
        beta: backscattering, 1/m.
        rng: source of the noise.
    """
    ranges = np.linalg.norm(scan.points, axis=1).astype(np.float64)
    strength, distance = fog_return(alpha)
    row = (ranges / _STEP).astype(int).clip(max=len(strength) - 1)
    intensity = scan.feature("intensity")[:, 0]
    hard = intensity * np.exp(-2 * alpha * ranges)
    soft = intensity * ranges**2 * (beta / _WALL) * strength[row]
    moved = soft > hard
    noise = rng.uniform(ranges - 10, ranges + 10)
    noise = np.where(abs(noise) < _LEAST_NOISE, _LEAST_NOISE, noise)
    factor = np.where(moved, distance[row] / noise, 1)
    return Seen(
        (scan.points * factor[:, None]).astype(np.float32),
        np.where(moved, soft, hard).astype(np.float32),
        moved,
        np.zeros(len(scan), dtype=bool),
    )


def flakes(rate: float, speed: float) -> tuple[float, float]:
    """Return how many snowflakes a square metre of a plane cuts, and their mean diameter in metres.

    Their diameters are exponentially distributed with Λ = 25.5 r^−0.48 per cm, r being the rain of
    as much water in mm/h (Gunn and Marshall, 1958); they fill the share rate / (0.1 speed) of the
    plane.

    Args:
        rate: snowfall, mm of water an hour.
        speed: at which flakes fall, m/s.
    """
    filled = rate / (_SECONDS_OF_MM * _SNOW_DENSITY * speed)
    rain = (rate / (487 * _SNOW_DENSITY * _FLAKE * speed)) ** 1.5
    mean = 0.01 / (25.5 * rain**-0.48)
    return filled / (np.pi * mean**2 / 2), mean  # E[π D² / 4] = π mean² / 2


def in_snow(
    scan: Scan, rate: float, speed: float, rng: np.random.Generator, noise_floor: float = 0.7
) -> Seen:
    """Return what a sensor sees of a scan while it snows: each point, or a flake before it.

    As in the paper snow lies in the plane of a ring, in which a beam is a triangle 3 mrad wide. A
    flake in it, drawn evenly from its area, covers the share s of its width, all together Σ s at
    most 1, and returns 0.9 s / r²; the point behind them returns i (1 − Σ s) / R₀². The stronger is
    seen, with the intensity 0.9 s or i (1 − Σ s). Flakes beyond 15 m take their mean share. What is
    weaker than `noise_floor` of what one in a hundred points returns in clear air is lost, those
    of intensity 0 not counted; these are kept where no flake is before them.

    Args:
        scan: in clear air.
        rate: snowfall, mm of water an hour.
        speed: at which flakes fall, m/s.
        rng: source of the flakes, for each beam its own.
        noise_floor: see above.

    After Hahner et al., "LiDAR Snowfall Simulation for Robust 3D Object Detection", 2022.
    """
    ranges = np.linalg.norm(scan.points, axis=1).astype(np.float64).clip(min=1e-6)
    number, mean = flakes(rate, speed)
    slope = np.tan(_DIVERGENCE / 2)  # half the width of the beam, over the distance
    last = ranges.clip(_NEAREST, _NEAR_FLAKES)
    counts = rng.poisson(number * slope * (last**2 - _NEAREST**2))
    beam = np.repeat(np.arange(len(scan)), counts)
    # Evenly in the area: the square of the distance is even.
    r = np.sqrt(rng.uniform(_NEAREST**2, last[beam] ** 2))
    diameter = rng.exponential(mean, len(beam)).clip(max=_LARGEST_FLAKE)
    share = (diameter / (2 * r * slope)).clip(max=1)
    covered = np.bincount(beam, share, len(scan)) + number * mean * (ranges - last).clip(min=0)
    clear = scan.feature("intensity")[:, 0]
    intensity = clear * (1 - covered.clip(max=1))
    strongest, at, taken = _strongest(beam, _FLAKE_REFLECTIVITY * share, r, len(scan))
    moved = strongest > intensity / ranges**2
    power = np.where(moved, strongest, intensity / ranges**2)
    noticed = (clear / ranges**2)[clear > 0]
    threshold = noise_floor * np.quantile(noticed, _WEAKEST) if noticed.size else 0.0
    factor = np.where(moved, at / ranges, 1)
    return Seen(
        (scan.points * factor[:, None]).astype(np.float32),
        np.where(moved, taken, intensity).astype(np.float32),
        moved,
        (power < threshold) & ((clear > 0) | moved),
    )


def _strongest(
    beam: np.ndarray, reflected: np.ndarray, r: np.ndarray, beams: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of each beam's strongest flake its power, distance and reflected share, or zeros."""
    power = reflected / r**2
    order = np.lexsort((power, beam))
    last = np.append(beam[order][1:] != beam[order][:-1], [True] * (len(beam) > 0)).astype(bool)
    found = np.zeros((3, beams))
    found[:, beam[order][last]] = np.stack([power, r, reflected])[:, order[last]]
    return found[0], found[1], found[2]


def wet_reflectivity(angle: np.ndarray, dry: np.ndarray) -> np.ndarray:
    """Return the share of the light that comes back from ground under a film of water.

    Of the light of each polarization the water mirrors the share R away (Fresnel), on the way in
    and on the way out, and sends some of it back to the ground, again and again: together
    (1 − R)² ρ / (1 − ρ R). The larger of the two polarizations counts.

    Args:
        angle: between the ray and the vertical, radians.
        dry: reflectivity ρ of the dry ground.

    Shape:
        - angle, dry, result: (N,)
    """
    air, water = _REFRACTION
    cos = np.cos(angle)
    below = np.sqrt(1 - (air / water * np.sin(angle)) ** 2)
    across = ((air * cos - water * below) / (air * cos + water * below)) ** 2
    along = ((water * cos - air * below) / (water * cos + air * below)) ** 2
    mirrored = np.minimum(across, along)
    returned: np.ndarray = (1 - mirrored) ** 2 * dry / (1 - dry * mirrored)
    return returned


def on_wet_ground(
    scan: Scan, ground: np.ndarray, water: float, noise_floor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return intensities where the ground is wet, and which points are still noticed.

    On flat ground the ray comes in at θ = arccos(−z / r). A line through i / cos θ over the
    distance says what dry ground returns, F; the laser sends L = 15 F, so that the reflectivity is
    ρ = i / (L cos θ). Water fills the share f = water / 1.2 mm of the pavement's texture, at most
    all of it, and the wet ground returns

        L cos θ ((1 − f) ρ + f t / θ),   at most i,

    with t of `wet_reflectivity`, θ in radians as the generators of the benchmark divide by it. What
    is then at or below `noise_floor` F cos θ is lost.

    Args:
        scan: when dry, in the frame of a sensor that stands upright.
        ground: which points lie on the ground.
        water: its depth, mm.
        noise_floor: see above.

    Shape:
        - ground: (N,), bool
        - result: (N,) float32 and bool; all as it was below 1000 points of ground

    After Hahner et al., "LiDAR Snowfall Simulation for Robust 3D Object Detection", 2022.
    """
    intensity = scan.feature("intensity")[:, 0].copy()
    kept = np.ones(len(scan), dtype=bool)
    if ground.sum() < _FEWEST_GROUND_POINTS:
        return intensity, kept
    points = scan.points[ground].astype(np.float64)
    distance = np.linalg.norm(points, axis=1).clip(min=1e-6)
    # What lies above the sensor is no flat ground; a ray that grazes it comes close enough.
    cosine = (-points[:, 2] / distance).clip(_LEAST_COSINE, 1)
    slope, start = np.polyfit(distance, intensity[ground] / cosine, 1)
    dry = (slope * distance + start).clip(min=1e-6)
    sent, angle = _POWER * dry, np.arccos(cosine)
    reflectivity = intensity[ground] / (sent * cosine)
    filled = min(water / _PAVEMENT, 1)
    from_water = wet_reflectivity(angle, reflectivity.clip(_LEAST_REFLECTIVITY, 1))
    share = (1 - filled) * reflectivity + filled * from_water / angle.clip(min=1e-6)
    wet = np.minimum(sent * cosine * share, intensity[ground])
    kept[ground] = wet > noise_floor * dry * cosine
    intensity[ground] = wet
    return intensity, kept
