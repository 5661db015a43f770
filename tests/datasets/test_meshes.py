"""Shapes that streets are built of are closed, and look outwards."""

from collections import Counter

import numpy as np

from geonorm.datasets.synthetic.meshes import boxes


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
