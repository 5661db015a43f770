"""A spinning LiDAR: which rays it sends, where they end on a mesh, and how bright they return."""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from geonorm.datasets.scan import Scan
from geonorm.datasets.synthetic.meshes import Mesh

# Share of the albedo that a rough surface sends straight back, head-on and at grazing incidence.
HEAD_ON, GRAZING = 0.72, 0.37
FAINT_SPREAD = 0.25  # of the log of the range from which a return reads 0


def _require(met: bool, name: str, expected: str, value: object) -> None:
    if not met:
        raise ValueError(f"{name} must be {expected}; got {value}")


@dataclass(frozen=True)
class LidarSensor:
    r"""A spinning LiDAR with ``beams`` rings of ``azimuth_steps`` rays each.

    A surface of albedo :math:`\rho` met at distance :math:`r` under the angle :math:`\theta` to its
    normal returns

    .. math:: I = g \left(\frac{\rho\,(A \cos\theta + B \sin^2\theta)}{1 + (r/r_0)^p}
                  \right)^{\gamma} + o + \epsilon,

    clipped to [0, 1], with :math:`\gamma` = ``response``, :math:`r_0` = ``falloff``, :math:`p` =
    ``falloff_power`` and :math:`\epsilon` normal with ``intensity_noise``. A = 0.72 and B = 0.37
    are those of a surface with a roughness of 37 degrees looked at from where it is lit (Oren and
    Nayar, 1994). The gain :math:`g` and the offset :math:`o` drift from scan to scan:
    :math:`\log g` is normal about log ``intensity_gain`` with ``gain_drift``, and :math:`o` about
    ``intensity_offset`` with ``offset_drift``. Besides, :math:`g` differs from ring to ring: the
    log of what it is multiplied by is normal with ``ring_drift``, anew for each scan.

    Args:
        beams: rings, evenly spaced in elevation from ``fov_down`` to ``fov_up`` unless
            ``elevations`` says where they are.
        fov_down: elevation of the lowest ring in degrees.
        fov_up: elevation of the highest ring in degrees.
        elevations: of each ring in degrees, from ``fov_down`` to ``fov_up``; none for even ones.
        azimuth_steps: rays per ring, evenly spaced over 360 degrees.
        height: mounting height above the ground in metres.
        height_spread: the height differs from scan to scan by up to this, metres.
        tilt: standard deviation of pitch and of roll from scan to scan, degrees.
        min_range: nearer returns are lost, metres.
        max_range: farther returns are lost, metres.
        dark_range: metres from which a surface of albedo 0.1 returns too little to be seen; one of
            albedo 0.4 is seen from twice as far.
        range_noise: standard deviation of the measured distance in metres.
        dropout: share of the returns lost at random, in [0, 1).
        intensity_gain, gain_drift, ring_drift: see the formula.
        intensity_offset, offset_drift: likewise.
        intensity_noise, response: likewise.
        falloff: likewise, in metres.
        falloff_power: likewise; above 2 where near distances are made up for.
        faint_range: metres from which a surface of albedo 0.1 met head-on reads 0, though it is
            seen; one of albedo 0.4 reads 0 from about twice as far, and a half more or less.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> LidarSensor(beams=16, azimuth_steps=360).directions().shape
        (5760, 3)
    """

    beams: int = 32
    fov_down: float = -20.0
    fov_up: float = 6.0
    azimuth_steps: int = 420
    height: float = 1.8
    height_spread: float = 0.2
    tilt: float = 0.8
    min_range: float = 1.0
    max_range: float = 30.0
    range_noise: float = 0.015
    dropout: float = 0.08
    intensity_gain: float = 1.0
    intensity_offset: float = 0.05
    gain_drift: float = 0.3
    offset_drift: float = 0.08
    intensity_noise: float = 0.02
    response: float = 0.5
    falloff: float = 60.0
    elevations: tuple[float, ...] = ()
    dark_range: float = np.inf
    ring_drift: float = 0.0
    falloff_power: float = 2.0
    faint_range: float = np.inf

    def __post_init__(self) -> None:
        for name in ("beams", "azimuth_steps"):
            _require(getattr(self, name) >= 1, name, ">= 1", getattr(self, name))
        for name in ("range_noise", "intensity_noise", "gain_drift", "offset_drift",
                     "height_spread", "tilt", "min_range", "ring_drift"):  # fmt: skip
            _require(getattr(self, name) >= 0, name, ">= 0", getattr(self, name))
        for name in ("intensity_gain", "response", "falloff", "height", "dark_range",
                     "falloff_power", "faint_range"):  # fmt: skip
            _require(getattr(self, name) > 0, name, "> 0", getattr(self, name))
        fov = (self.fov_down, self.fov_up)
        _require(-90 <= fov[0] <= fov[1] <= 90, "(fov_down, fov_up)", "rising in [-90, 90]", fov)
        limits = (self.min_range, self.max_range)
        _require(limits[0] < limits[1], "(min_range, max_range)", "rising", limits)
        _require(0 <= self.dropout < 1, "dropout", "in [0, 1)", self.dropout)
        if self.elevations:
            told, rising = len(self.elevations), bool((np.diff(self.elevations) > 0).all())
            _require(told == self.beams, "elevations", f"one for each of {self.beams} beams", told)
            met = rising and (self.elevations[0], self.elevations[-1]) == fov
            _require(met, "elevations", f"rising from {fov[0]} to {fov[1]}", self.elevations)

    def directions(self) -> np.ndarray:
        """Return the unit vector of every ray in the sensor's frame, ring by ring.

        Shape:
            - output: (beams * azimuth_steps, 3), float32
        """
        even = np.linspace(self.fov_down, self.fov_up, self.beams)
        elevation = np.radians(self.elevations if self.elevations else even)[:, None]
        azimuth = (np.arange(self.azimuth_steps) * (2 * np.pi / self.azimuth_steps))[None]
        level, up = np.cos(elevation), np.sin(elevation)
        rays = [level * np.cos(azimuth), level * np.sin(azimuth), up + 0 * azimuth]
        return np.stack(rays, axis=-1).reshape(-1, 3).astype(np.float32)


# Velodyne's HDL-64E S2 ("User's Manual and Programming Guide"): 32 lasers at 1/2 degree below 32 at
# 1/3 degree, pavement seen from 50 m, 0.9 m and farther, 2 cm; at 10 turns a second a ray each
# 0.1728 degrees. 1.73 m is the height at which KITTI's car carries it (Geiger et al., "Vision meets
# Robotics: The KITTI Dataset", 2013). Intensity is compensated for distance (the manual of its
# successor S3); how it falls nevertheless, and from where faint returns read 0, is fitted to the
# bare points of a scan (docs/training_scans.md).
_LOWER = tuple(-24.33 + beam / 2 for beam in range(32))
_UPPER = tuple(2 - (31 - beam) / 3 for beam in range(32))
_HDL64 = LidarSensor(
    beams=64,
    fov_down=_LOWER[0],
    fov_up=_UPPER[-1],
    elevations=(*_LOWER, *_UPPER),
    azimuth_steps=2083,
    height=1.73,
    height_spread=0.1,
    tilt=1.2,
    min_range=0.9,
    max_range=80.0,
    dark_range=50.0,
    range_noise=0.015,
    dropout=0.01,
    intensity_gain=0.74,
    intensity_offset=0.0,
    gain_drift=0.2,
    offset_drift=0.03,
    ring_drift=0.12,
    intensity_noise=0.06,
    response=0.5,
    falloff=30.0,
    falloff_power=3.0,
    faint_range=28.0,
)

SENSORS = {
    "roof32": LidarSensor(),
    "mast64": LidarSensor(
        beams=64,
        fov_down=-28.0,
        fov_up=2.0,
        azimuth_steps=240,
        height=2.6,
        range_noise=0.03,
        dropout=0.15,
        intensity_gain=0.55,
        intensity_offset=0.2,
        response=0.8,
    ),
    "hdl64": _HDL64,
}


def sensor_named(sensor: LidarSensor | str) -> LidarSensor:
    """Return the sensor itself, or the one of that name in ``SENSORS``.

    Raises:
        ValueError: no sensor has that name.

    Example:
        >>> sensor_named("mast64").beams
        64
    """
    if isinstance(sensor, LidarSensor):
        return sensor
    if sensor not in SENSORS:
        raise ValueError(
            f"sensor must be a LidarSensor or one of {', '.join(SENSORS)}; got {sensor!r}"
        )
    return SENSORS[sensor]


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return the (3, 3) matrix that turns sensor vectors by roll, pitch, then yaw, in radians."""
    (cy, cp, cr), (sy, sp, sr) = np.cos((yaw, pitch, roll)), np.sin((yaw, pitch, roll))
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    turn: np.ndarray = about_z @ about_y @ about_x
    return turn


def cast(
    sensor: LidarSensor,
    mesh: Mesh,
    position: np.ndarray,
    orientation: np.ndarray,
    rng: np.random.Generator,
    name: str = "scan",
) -> Scan:
    """Return what the sensor measures of a mesh; each point carries the class of its triangle.

    Args:
        sensor: the rays and the errors of the measurement.
        mesh: the world.
        position: of the sensor in the world, metres.
        orientation: rotation from the sensor's frame to the world's.
        rng: source of noise, drop-out and drift.
        name: name of the scan.

    Shape:
        - position: (3,)
        - orientation: (3, 3)

    Example:
        >>> from geonorm.datasets.synthetic.meshes import boxes
        >>> wall = boxes((5, -50, -50), (6, 50, 50), label=3, albedo=0.5)
        >>> scan = cast(LidarSensor(), wall, np.zeros(3), np.eye(3), np.random.default_rng(0))
        >>> np.unique(scan.labels)
        array([3])
    """
    rays = sensor.directions()
    distance, triangle, normal = _first_hits(mesh, position, rays @ orientation.T)
    kept = (distance >= sensor.min_range) & (distance <= sensor.max_range)
    kept &= rng.random(len(rays)) >= sensor.dropout
    seen = np.flatnonzero(kept)
    kept[seen] = distance[seen] <= sensor.dark_range * np.sqrt(mesh.albedo[triangle[seen]] / 0.1)
    ring = np.flatnonzero(kept) // sensor.azimuth_steps
    rays, distance, triangle = rays[kept], distance[kept], triangle[kept]
    cosine = np.abs(np.einsum("nd,nd->n", rays @ orientation.T, normal[kept]))
    gain = sensor.intensity_gain * np.exp(sensor.gain_drift * rng.standard_normal())
    offset = sensor.intensity_offset + sensor.offset_drift * rng.standard_normal()
    returned = HEAD_ON * cosine + GRAZING * (1 - cosine**2)
    power = mesh.albedo[triangle] * returned
    signal = power / (1 + (distance / sensor.falloff) ** sensor.falloff_power)
    if sensor.ring_drift > 0:  # else nothing is drawn, and scans stay as they were
        gain = gain * np.exp(sensor.ring_drift * rng.standard_normal(sensor.beams))[ring]
    intensity = gain * signal**sensor.response + offset
    intensity += sensor.intensity_noise * rng.standard_normal(len(rays))
    if np.isfinite(sensor.faint_range):
        spread = np.exp(FAINT_SPREAD * rng.standard_normal(len(rays)))
        reach = sensor.faint_range * np.sqrt(power / (0.1 * HEAD_ON)) * spread
        intensity[distance > reach] = 0.0
    distance = distance + sensor.range_noise * rng.standard_normal(len(rays))
    return Scan(
        (rays * distance[:, None]).astype(np.float32),
        np.clip(intensity, 0, 1).astype(np.float32),
        mesh.labels[triangle],
        name,
    )


def load_open3d() -> tuple[ModuleType, ModuleType]:
    """Import the tensors and the ray casting of Open3D, which takes a second or two.

    Who makes scans in worker processes calls it before they are forked, so that it is paid once.

    Returns:
        ``open3d.core`` and ``open3d.t.geometry``.

    Raises:
        ImportError: Open3D is missing or cannot be loaded.
    """
    try:
        return import_module("open3d.core"), import_module("open3d.t.geometry")
    except ImportError as error:
        raise ImportError(
            f"casting rays needs Open3D, which cannot be imported here ({error}): pip install "
            "open3d, or use scans from files, such as SemanticKITTI's"
        ) from error


def _first_hits(mesh: Mesh, origin: np.ndarray, directions: np.ndarray) -> tuple[Any, Any, Any]:
    """Return distance (inf where nothing is hit), triangle and unit normal per ray."""
    o3c, scenes = load_open3d()
    # One thread: the workers of a DataLoader share the cores already, and threads that a parent
    # process started do not survive its fork.
    scene = scenes.RaycastingScene(nthreads=1)
    vertices = np.ascontiguousarray(mesh.vertices, dtype=np.float32)
    triangles = np.ascontiguousarray(mesh.triangles, dtype=np.uint32)
    scene.add_triangles(o3c.Tensor.from_numpy(vertices), o3c.Tensor.from_numpy(triangles))
    rays = np.empty((len(directions), 6), dtype=np.float32)
    rays[:, :3], rays[:, 3:] = origin, directions
    hits = scene.cast_rays(o3c.Tensor.from_numpy(rays), nthreads=1)
    return hits["t_hit"].numpy(), hits["primitive_ids"].numpy(), hits["primitive_normals"].numpy()
