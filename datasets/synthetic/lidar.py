"""A spinning LiDAR: which rays it sends, where they end on a mesh, and how bright they return."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from geonorm.datasets.scan import Scan
from geonorm.datasets.synthetic.meshes import Mesh

# Share of the albedo that a rough surface sends straight back, head-on and at grazing incidence.
HEAD_ON, GRAZING = 0.72, 0.37


def _require(met: bool, name: str, expected: str, value: object) -> None:
    if not met:
        raise ValueError(f"{name} must be {expected}; got {value}")


@dataclass(frozen=True)
class LidarSensor:
    r"""A spinning LiDAR with ``beams`` rings of ``azimuth_steps`` rays each.

    A surface of albedo :math:`\rho` met at distance :math:`r` under the angle :math:`\theta` to its
    normal returns

    .. math:: I = g \left(\frac{\rho\,(A \cos\theta + B \sin^2\theta)}{1 + (r/r_0)^2}
                  \right)^{\gamma} + o + \epsilon,

    clipped to [0, 1], with :math:`\gamma` = ``response``, :math:`r_0` = ``falloff`` and
    :math:`\epsilon` normal with ``intensity_noise``. A = 0.72 and B = 0.37 are those of a surface
    with a roughness of 37 degrees looked at from where it is lit (Oren and Nayar, 1994). The gain
    :math:`g` and the offset :math:`o` drift from scan to scan: :math:`\log g` is normal about log
    ``intensity_gain`` with ``gain_drift``, :math:`o` normal about ``intensity_offset`` with
    ``offset_drift``.

    Args:
        beams: rings, evenly spaced in elevation from ``fov_down`` to ``fov_up``.
        fov_down: elevation of the lowest ring in degrees.
        fov_up: elevation of the highest ring in degrees.
        azimuth_steps: rays per ring, evenly spaced over 360 degrees.
        height: mounting height above the ground in metres.
        height_spread: the height differs from scan to scan by up to this, metres.
        tilt: standard deviation of pitch and of roll from scan to scan, degrees.
        min_range: nearer returns are lost, metres.
        max_range: farther returns are lost, metres.
        range_noise: standard deviation of the measured distance in metres.
        dropout: share of the returns lost at random, in [0, 1).
        intensity_gain, gain_drift: see the formula.
        intensity_offset, offset_drift: likewise.
        intensity_noise, response: likewise.
        falloff: likewise, in metres.

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

    def __post_init__(self) -> None:
        for name in ("beams", "azimuth_steps"):
            _require(getattr(self, name) >= 1, name, ">= 1", getattr(self, name))
        for name in ("range_noise", "intensity_noise", "gain_drift", "offset_drift",
                     "height_spread", "tilt", "min_range"):  # fmt: skip
            _require(getattr(self, name) >= 0, name, ">= 0", getattr(self, name))
        for name in ("intensity_gain", "response", "falloff", "height"):
            _require(getattr(self, name) > 0, name, "> 0", getattr(self, name))
        fov = (self.fov_down, self.fov_up)
        _require(-90 <= fov[0] <= fov[1] <= 90, "(fov_down, fov_up)", "rising in [-90, 90]", fov)
        limits = (self.min_range, self.max_range)
        _require(limits[0] < limits[1], "(min_range, max_range)", "rising", limits)
        _require(0 <= self.dropout < 1, "dropout", "in [0, 1)", self.dropout)

    def directions(self) -> np.ndarray:
        """Return the unit vector of every ray in the sensor's frame, ring by ring.

        Shape:
            - output: (beams * azimuth_steps, 3), float32
        """
        elevation = np.radians(np.linspace(self.fov_down, self.fov_up, self.beams))[:, None]
        azimuth = (np.arange(self.azimuth_steps) * (2 * np.pi / self.azimuth_steps))[None]
        level, up = np.cos(elevation), np.sin(elevation)
        rays = [level * np.cos(azimuth), level * np.sin(azimuth), up + 0 * azimuth]
        return np.stack(rays, axis=-1).reshape(-1, 3).astype(np.float32)


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
    rays, distance, triangle = rays[kept], distance[kept], triangle[kept]
    cosine = np.abs(np.einsum("nd,nd->n", rays @ orientation.T, normal[kept]))
    gain = sensor.intensity_gain * np.exp(sensor.gain_drift * rng.standard_normal())
    offset = sensor.intensity_offset + sensor.offset_drift * rng.standard_normal()
    returned = HEAD_ON * cosine + GRAZING * (1 - cosine**2)
    signal = mesh.albedo[triangle] * returned / (1 + (distance / sensor.falloff) ** 2)
    intensity = gain * signal**sensor.response + offset
    intensity += sensor.intensity_noise * rng.standard_normal(len(rays))
    distance = distance + sensor.range_noise * rng.standard_normal(len(rays))
    return Scan(
        (rays * distance[:, None]).astype(np.float32),
        np.clip(intensity, 0, 1).astype(np.float32),
        mesh.labels[triangle],
        name,
    )


def _first_hits(mesh: Mesh, origin: np.ndarray, directions: np.ndarray) -> tuple[Any, Any, Any]:
    """Return distance (inf where nothing is hit), triangle and unit normal per ray."""
    # Open3D takes a second to import, and only those who cast rays need it.
    try:
        import open3d.core as o3c
        from open3d.t.geometry import RaycastingScene
    except ImportError as error:
        raise ImportError(
            f"casting rays needs Open3D, which cannot be imported here ({error}): pip install "
            "open3d, or use scans from files, such as SemanticKITTI's"
        ) from error

    # One thread: the workers of a DataLoader share the cores already, and threads that a parent
    # process started do not survive its fork.
    scene = RaycastingScene(nthreads=1)
    vertices = np.ascontiguousarray(mesh.vertices, dtype=np.float32)
    triangles = np.ascontiguousarray(mesh.triangles, dtype=np.uint32)
    scene.add_triangles(o3c.Tensor.from_numpy(vertices), o3c.Tensor.from_numpy(triangles))
    rays = np.empty((len(directions), 6), dtype=np.float32)
    rays[:, :3], rays[:, 3:] = origin, directions
    hits = scene.cast_rays(o3c.Tensor.from_numpy(rays), nthreads=1)
    return hits["t_hit"].numpy(), hits["primitive_ids"].numpy(), hits["primitive_normals"].numpy()
