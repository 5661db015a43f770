"""Triangle meshes that know class and albedo, and the shapes that streets are built of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

_BOX_CORNERS = np.array([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)], dtype=np.float32)
_BOX_TRIANGLES = np.array(
    [[0, 2, 1], [1, 2, 3], [4, 5, 6], [5, 7, 6], [0, 1, 4], [1, 5, 4],
     [2, 6, 3], [3, 6, 7], [0, 4, 2], [2, 4, 6], [1, 3, 5], [3, 7, 5]]
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles with a class and an albedo each.

    Args:
        vertices: corner positions in metres, float32.
        triangles: three rows of ``vertices`` each.
        labels: class of each triangle.
        albedo: reflected share of light of each triangle, in [0, 1].

    Shape:
        - vertices: (V, 3)
        - triangles: (T, 3)
        - labels, albedo: (T,)
    """

    vertices: np.ndarray
    triangles: np.ndarray
    labels: np.ndarray
    albedo: np.ndarray

    @classmethod
    def of(
        cls, vertices: np.ndarray, triangles: np.ndarray, label: int, albedo: float | np.ndarray
    ) -> Self:
        """Return a mesh of one class, with one albedo or one per triangle."""
        count = len(triangles)
        tones = np.empty(count, dtype=np.float32)
        tones[:] = albedo
        return cls(
            np.asarray(vertices, dtype=np.float32),
            np.asarray(triangles, dtype=np.uint32),
            np.full(count, label, dtype=np.int64),
            tones,
        )

    def moved(
        self,
        shift: Sequence[float] = (0.0, 0.0, 0.0),
        yaw: float = 0.0,
        scale: float | Sequence[float] = 1.0,
    ) -> Self:
        """Return the mesh scaled, turned about z by ``yaw`` radians, then shifted by metres."""
        vertices = self.vertices * np.asarray(scale, dtype=np.float32)
        if yaw != 0.0:
            cos, sin = np.cos(yaw), np.sin(yaw)
            turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], dtype=np.float32)
            vertices = vertices @ turn
        return replace(self, vertices=vertices + np.asarray(shift, dtype=np.float32))

    def painted(self, label: int, albedo: float) -> Self:
        """Return the mesh all of one class and one albedo."""
        count = len(self.triangles)
        return replace(
            self,
            labels=np.full(count, label, dtype=np.int64),
            albedo=np.full(count, albedo, dtype=np.float32),
        )

    def upended(self) -> Self:
        """Return the mesh with its vertical axis laid along y."""
        return replace(self, vertices=self.vertices[:, [0, 2, 1]])


def merge(meshes: Iterable[Mesh]) -> Mesh:
    """Return all meshes as one.

    Raises:
        ValueError: there is none.
    """
    meshes = list(meshes)
    if not meshes:
        raise ValueError("merge expected at least one mesh; got none")
    first = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate(
            [mesh.triangles + np.uint32(start) for mesh, start in zip(meshes, first, strict=True)]
        ),
        np.concatenate([mesh.labels for mesh in meshes]),
        np.concatenate([mesh.albedo for mesh in meshes]),
    )


def boxes(low: ArrayLike, high: ArrayLike, label: int, albedo: float | np.ndarray) -> Mesh:
    """Return axis-aligned boxes between the corners ``low`` and ``high``.

    Args:
        low: smallest corner of each box in metres.
        high: largest corner of each box in metres.
        label: class of all of them.
        albedo: of all, or one per box.

    Shape:
        - low, high: (K, 3) or (3,)
        - albedo: scalar or (K,)

    Example:
        >>> boxes((0, 0, 0), (1, 2, 3), label=4, albedo=0.5).triangles.shape
        (12, 3)
    """
    low, high = np.atleast_2d(np.asarray(low)), np.atleast_2d(np.asarray(high))
    count = len(low)
    vertices = low[:, None] + (high - low)[:, None] * _BOX_CORNERS
    triangles = _BOX_TRIANGLES + 8 * np.arange(count)[:, None, None]
    tones = albedo if np.ndim(albedo) == 0 else np.repeat(albedo, 12)
    return Mesh.of(vertices.reshape(-1, 3), triangles.reshape(-1, 3), label, tones)


def lathe(
    profile: Sequence[tuple[float, float]], label: int, albedo: float, sides: int = 8
) -> Mesh:
    """Return the surface that a profile of (radius, height) pairs in metres sweeps about z.

    Example:
        >>> lathe([(0.1, 0.0), (0.1, 2.0)], label=1, albedo=0.3, sides=6).triangles.shape
        (12, 3)
    """
    radius, height = np.asarray(profile, dtype=np.float32).T
    angle = np.arange(sides) * (2 * np.pi / sides)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    vertices = np.empty((len(radius), sides, 3), dtype=np.float32)
    vertices[..., :2] = radius[:, None, None] * ring
    vertices[..., 2] = height[:, None]
    return Mesh.of(
        vertices.reshape(-1, 3), _grid_triangles(len(radius), sides, closed=True), label, albedo
    )


def ellipsoid(radii: Sequence[float], label: int, albedo: float, sides: int = 8) -> Mesh:
    """Return an ellipsoid about the origin with the three half axes ``radii`` in metres."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, sides // 2 + 1)
    profile = list(zip(np.cos(angle), np.sin(angle), strict=True))
    return lathe(profile, label, albedo, sides).moved(scale=radii)


def heightfield(x: np.ndarray, y: np.ndarray, z: np.ndarray, label: int, albedo: float) -> Mesh:
    """Return the surface z over the grid x by y.

    Shape:
        - x: (X,), y: (Y,), z: (X, Y), metres
    """
    grid_x, grid_y = np.meshgrid(x, y, indexing="ij")
    vertices = np.stack([grid_x, grid_y, z], axis=-1).reshape(-1, 3)
    return Mesh.of(vertices, _grid_triangles(len(x), len(y), closed=False), label, albedo)


def leaves(
    centers: np.ndarray, size: float, label: int, albedo: float, rng: np.random.Generator
) -> Mesh:
    """Return one randomly turned triangle per centre: foliage that light partly passes through.

    Args:
        centers: where the leaves hang, metres.
        size: typical distance of a corner from the centre in metres.
        label: class of all of them.
        albedo: mean albedo; single leaves differ by up to 30 %.
        rng: source of the orientations.

    Shape:
        - centers: (K, 3)
    """
    count = len(centers)
    corners = rng.normal(scale=size / np.sqrt(3), size=(count, 3, 3))
    vertices = (np.asarray(centers)[:, None] + corners).reshape(-1, 3)
    shade = albedo * rng.uniform(0.7, 1.3, size=count)
    return Mesh.of(vertices, np.arange(3 * count).reshape(-1, 3), label, shade)


@cache
def _grid_triangles(rows: int, columns: int, closed: bool) -> np.ndarray:
    """Return two triangles per cell of a grid of vertices; closed joins last column to first."""
    row = np.arange(rows - 1)[:, None] * columns
    column = np.arange(columns if closed else columns - 1)[None]
    following = (column + 1) % columns
    a, b = row + column, row + following
    c, d = a + columns, b + columns
    return np.stack([a, b, c, b, d, c], axis=-1).reshape(-1, 3)
