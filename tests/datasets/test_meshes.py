"""Shapes that streets are built of: where they lie, closed, and looking outwards."""

from collections import Counter

import numpy as np
import pytest

from geonorm.datasets.synthetic.meshes import (
    boxes,
    ellipsoid,
    heightfield,
    lathe,
    leaves,
    merge,
)


def test_a_box_is_closed_and_each_triangle_looks_outwards():
    low, high = [(-3, 1, 0), (7, 8, 9)], [(-1, 4, 5), (8, 10, 12)]
    mesh = boxes(low, high, label=3, albedo=0.5)
    edges = Counter(edge for a, b, c in mesh.triangles.tolist()
                    for edge in ((a, b), (b, c), (c, a)))  # fmt: skip
    assert {*edges.values()} == {1}
    assert {(b, a) for a, b in edges} == {*edges}
    corners = mesh.vertices[mesh.triangles].astype(np.float64)
    volumes = np.linalg.det(corners).reshape(2, 12).sum(axis=1) / 6
    np.testing.assert_allclose(volumes, [2 * 3 * 5, 1 * 2 * 3])


def test_a_mesh_is_scaled_then_turned_to_the_left_then_shifted():
    box = boxes((0, 0, 0), (1, 2, 3), 4, 0.5)
    far = box.moved((10, 20, 30), np.pi / 2, (2, 3, 4)).vertices[-1]
    np.testing.assert_allclose(far, [10 - 6, 20 + 2, 30 + 12], rtol=1e-6)
    np.testing.assert_array_equal(box.moved().vertices, box.vertices)
    np.testing.assert_array_equal(box.upended().vertices[-1], [1, 3, 2])
    painted = box.painted(7, 0.25)
    assert (painted.labels.tolist(), painted.albedo.tolist()) == ([7] * 12, [0.25] * 12)


def test_merged_meshes_keep_their_triangles():
    one, other = boxes([(0, 0, 0)] * 2, [(1, 1, 1), (2, 2, 2)], 1, [0.25, 0.75]), lathe(
        [(1, 0), (2, 5)], 2, 0.5, sides=3
    )
    assert one.albedo.tolist() == [0.25] * 12 + [0.75] * 12
    both = merge([one, other, one])
    corners = [mesh.vertices[mesh.triangles] for mesh in (one, other, one)]
    np.testing.assert_array_equal(both.vertices[both.triangles], np.concatenate(corners))
    assert both.labels.tolist() == [1] * 24 + [2] * 6 + [1] * 24
    assert (both.vertices.dtype, both.triangles.dtype) == (np.float32, np.uint32)
    assert (both.labels.dtype, both.albedo.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(merge(iter([one, other, one])).triangles, both.triangles)


def areas(mesh):
    a, b, c = mesh.vertices[mesh.triangles].astype(np.float64).transpose(1, 0, 2)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def test_swept_profiles_close_and_grids_do_not():
    assert lathe([(0.5, 1), (0.5, 3)], 1, 0.5).vertices.shape == (16, 3)
    square = lathe([(0.5, 1), (0.5, 3)], 1, 0.5, sides=4)
    np.testing.assert_allclose(areas(square).sum(), 4 * np.sqrt(0.5) * 2, rtol=1e-6)
    assert {*square.vertices[:, 2]} == {1, 3}
    egg = ellipsoid((1, 2, 3), 1, 0.5)
    assert len(egg.vertices) == 5 * 8
    np.testing.assert_allclose(abs(egg.vertices).max(axis=0), [1, 2, 3], rtol=1e-6)
    field = heightfield(np.array([0, 1, 3.0]), np.array([5, 9.0]), np.full((3, 2), 2.0), 1, 0.5)
    np.testing.assert_allclose(areas(field), [2, 2, 4, 4])
    np.testing.assert_array_equal(field.vertices[[0, 1, -1]], [(0, 5, 2), (0, 9, 2), (3, 9, 2)])


def test_leaves_hang_about_their_centres():
    centers = np.tile([(3.0, -4.0, 5.0)], (4000, 1))
    mesh = leaves(centers, 0.3, 6, 0.5, np.random.default_rng(0))
    away = mesh.vertices[mesh.triangles] - np.float32([3, -4, 5])
    np.testing.assert_allclose(away.mean(axis=(0, 1)), 0, atol=0.01)
    assert np.sqrt(np.square(away).sum(axis=2).mean()) == pytest.approx(0.3, rel=0.03)
    assert 0.35 <= mesh.albedo.min() < 0.352
    assert 0.648 < mesh.albedo.max() <= 0.65


def test_merging_nothing_is_refused():
    for nothing in ([], iter([])):
        with pytest.raises(ValueError, match="at least one mesh; got none"):
            merge(nothing)


def test_shapes_are_where_they_say():
    tube = lathe([(0.5, 0.0), (0.5, 3.0)], label=1, albedo=0.2, sides=8)
    np.testing.assert_allclose(np.linalg.norm(tube.vertices[:, :2], axis=1), 0.5, rtol=1e-6)
    assert np.abs(tube.upended().vertices[:, 1]).max() == 3
    ball = ellipsoid((1, 2, 3), label=1, albedo=0.2)
    np.testing.assert_allclose(np.abs(ball.vertices).max(axis=0), (1, 2, 3), rtol=1e-6)
    slope = heightfield(np.arange(3.0), np.arange(2.0), np.ones((3, 2)), label=1, albedo=0.2)
    assert len(slope.triangles) == 4
    box = boxes((0, 0, 0), (1, 2, 3), label=1, albedo=0.2).moved((10, 0, 0), np.pi / 2, 2)
    np.testing.assert_allclose(box.vertices.min(axis=0), (6, 0, 0), atol=1e-5)
    np.testing.assert_allclose(box.vertices.max(axis=0), (10, 2, 6), atol=1e-5)


def volume(mesh):
    """Return the volume that triangles enclose, negative where they face inward."""
    a, b, c = np.moveaxis(mesh.vertices[mesh.triangles].astype(np.float64), 1, 0)
    return float((a * np.cross(b, c)).sum() / 6)


def test_shapes_enclose_their_volume_and_face_outward():
    two = boxes([(1, 2, 3), (-4, 0, 0)], [(2, 4, 6), (-1, 1, 1)], label=1, albedo=0.2)
    assert volume(two) == pytest.approx(1 * 2 * 3 + 3 * 1 * 1, rel=1e-5)
    ball = ellipsoid((1, 2, 3), label=1, albedo=0.2, sides=64)
    assert volume(ball) == pytest.approx(4 / 3 * np.pi * 6, rel=0.01)
    cone = lathe([(0, 0), (2, 0), (0, 3)], label=1, albedo=0.2, sides=64)
    assert volume(cone) == pytest.approx(np.pi * 4 * 3 / 3, rel=0.01)


def test_outward_faces_of_a_merged_mesh_keep_their_class():
    mesh = merge([boxes((0, 0, 0), (1, 1, 1), label=i, albedo=0.1 * i) for i in range(1, 4)])
    assert len(mesh.vertices) == 24
    assert mesh.triangles.max() == 23
    np.testing.assert_array_equal(mesh.labels, np.repeat([1, 2, 3], 12))
    np.testing.assert_allclose(mesh.albedo, np.repeat([0.1, 0.2, 0.3], 12), rtol=1e-6)
