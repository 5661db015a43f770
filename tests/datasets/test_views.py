"""Chunks that cover a scan, votes that turn and move it, and crops for training."""

import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geonorm.datasets import ChunkCrop, Scan, Viewing, chunks, collate_scans
from geonorm.datasets.views import Views, collate_views, seen

VOXELS = {"voxel_size": 0.5, "clip_range": None, "features": {"position": 1.0, "normal": 1.0}}


def cloud(count=200, seed=0, extent=(10, 6, 3), name="room"):
    draw = np.random.default_rng(seed)
    normal = np.eye(3, dtype="f4")[draw.integers(0, 3, count)]
    points = draw.uniform(0, 1, (count, 3)) * extent
    return Scan(points.astype("f4"), None, draw.integers(0, 4, count), name, domain=seed,
                extra={"normal": normal})  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(
    count=st.integers(1, 60), seed=st.integers(0, 999), size=st.floats(0.3, 30),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.8]), shift=st.sampled_from([0, -57.3, 1800.0]),
)  # fmt: skip
def test_every_point_is_in_a_square_of_the_size(count, seed, size, overlap, shift):
    points = cloud(count, seed).points + np.float32(shift)
    found = chunks(points, size, overlap)
    assert {*np.concatenate(found)} == set(range(count))
    for rows in found:
        assert (np.ptp(points[rows, :2], axis=0) <= size + 1e-3).all()
        assert (np.diff(rows) > 0).all()
    if size >= np.ptp(points[:, :2], axis=0).max():
        assert [rows.tolist() for rows in found] == [list(range(count))]


def test_chunks_by_hand():
    x, y = np.meshgrid(np.arange(11), np.arange(5), indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), 9 * x.ravel()], axis=1).astype("f4")
    found = chunks(points, size=4, overlap=0.5)  # from 0, 2, 4 and 6 in x, from 0 in y
    assert [sorted({*points[rows, 0].astype(int)}) for rows in found] == [
        [0, 1, 2, 3, 4], [2, 3, 4, 5, 6], [4, 5, 6, 7, 8], [6, 7, 8, 9, 10]]  # fmt: skip
    assert all(len(rows) == 25 for rows in found)
    assert len(chunks(points, size=4, overlap=0)) == 3  # from 0, 3 and 6: evenly
    assert len(chunks(points, size=2, overlap=0)) == 5 * 2
    assert len(chunks(points, size=4)) == len(Viewing(chunk=4.0).pieces(points)) == 4
    assert len(Viewing(chunk=4.0, overlap=0.0).pieces(points)) == 3
    [whole] = Viewing(votes=3).pieces(points)
    assert whole.tolist() == [*range(55)]
    assert len(chunks(points * np.float32(0.1), size=0.2, overlap=0)) == 5 * 2  # 0.400000006 deep


def test_a_room_of_a_million_points_is_cut_in_seconds():
    points = cloud(1_000_000, extent=(40, 30, 3)).points
    found = chunks(points, 6)
    assert max(len(rows) for rows in found) < 50_000
    assert np.bincount(np.concatenate(found)).min() == 1


def test_the_votes_are_quarter_turns_then_mirrored_ones():
    scan = cloud(50)
    assert seen(scan, 0, 0.5) is scan
    moves = []
    for vote in range(1, 12):
        view = seen(scan, vote, 0.5)
        mirror = np.array([[1], [-1 if vote in (4, 5, 6, 7) else 1], [1]])
        x, y, z = scan.points.T * mirror
        expected = [(x, y), (-y, x), (-x, -y), (y, -x)][vote % 4]
        move = view.points - np.stack([*expected, z], axis=1)
        np.testing.assert_allclose(move, move[:1].repeat(50, 0), atol=3e-6)
        moves.append(move[0])
        # A normal turns, and is mirrored, but does not move.
        nx, ny, _ = scan.extra["normal"].T * mirror
        turned = [(nx, ny), (-ny, nx), (-nx, -ny), (ny, -nx)][vote % 4]
        np.testing.assert_allclose(view.extra["normal"][:, :2].T, turned, atol=1e-6)
        assert view.labels is scan.labels
        assert view.domain == scan.domain
    moves = np.array(moves)
    root = 1.2207440846057596  # of g ** 4 = g + 1
    steps = np.array([1 / root, 1 / root**2, 1 / root**3])
    np.testing.assert_allclose(moves[[0, 4]], np.array([steps, 5 * steps % 1]) / 2, atol=3e-6)
    assert (moves >= 0).all()
    assert (moves < 0.5).all()
    assert len({tuple(np.round(move, 3)) for move in moves}) == 11
    assert (np.ptp(moves, axis=0) > 0.3).all()


def test_views_are_batches_of_the_pieces_of_each_scan():
    scans = [cloud(80, 1, name="a"), cloud(50, 2, name="b")]
    views = list(Views(scans, Viewing(votes=2, chunk=5.0), VOXELS))
    points = np.concatenate([scan.points for scan in scans])
    labels = np.concatenate([scan.labels for scan in scans])
    counts = np.zeros((2, 130), int)
    for vote, batch, rows in views:
        counts[vote, rows] += 1
        assert batch.point_labels.tolist() == labels[rows].tolist()
        assert len(batch.names) == 1
        own = 1 if batch.names == ["a"] else 2
        assert batch.domains == [own]
        assert ((rows < 80) == (own == 1)).all()
        if vote == 0:
            np.testing.assert_array_equal(batch.points, points[rows])
    assert (counts[0] == counts[1]).all()
    assert counts.min() == 1
    assert counts.max() > 1
    assert [vote for vote, _, _ in views] == sorted(vote for vote, _, _ in views)


def test_a_batch_brings_its_views_through_a_pipe():
    scans = [cloud(80, 1)]
    batch = pickle.loads(pickle.dumps(collate_views(scans, Viewing(3), **VOXELS)))
    assert len(list(batch.views)) == 3
    assert len(list(batch.views)) == 3  # as often as one likes
    plain = collate_scans(scans, **VOXELS)
    assert plain.views is None
    np.testing.assert_array_equal(batch.features, plain.features)


def test_what_may_be_seen_in_more_than_one_way():
    ways = Viewing(), Viewing(votes=2), Viewing(chunk=9.0), Viewing(overlap=0.2)
    assert [viewing.several for viewing in ways] == [False, True, True, False]
    with pytest.raises(FrozenInstanceError):
        ways[0].votes = 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"votes": 0}, "votes must be 1 or more; got 0"),
        ({"chunk": 0.0}, "chunk must be a positive number of metres; got 0.0"),
        ({"chunk": -2.0}, "chunk must be a positive number of metres; got -2.0"),
        ({"chunk": np.nan}, "chunk must be a positive number of metres; got nan"),
        ({"overlap": np.nan}, r"overlap must be a share in \[0, 1\); got nan"),
        ({"chunk": 5.0, "overlap": 1.0}, r"overlap must be a share in \[0, 1\); got 1.0"),
        ({"overlap": -0.1}, r"overlap must be a share in \[0, 1\); got -0.1"),
    ],
)
def test_viewings_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        Viewing(**options)


def test_a_chunk_crop_is_a_square_about_a_point():
    scan = cloud(4000, extent=(20, 20, 40))
    middles = []
    for seed in range(60):
        cropped = ChunkCrop(4)(scan, np.random.default_rng(seed))
        middle = scan.points[np.random.default_rng(seed).integers(4000), :2]
        inside = (np.abs(scan.points[:, :2] - middle) <= 2).all(axis=1)
        np.testing.assert_array_equal(cropped.points, scan.points[inside])
        np.testing.assert_array_equal(cropped.labels, scan.labels[inside])
        assert 30 < len(cropped) < 300
        assert np.ptp(cropped.points[:, 2]) > 30  # from floor to ceiling
        middles.append(middle)
    assert (np.ptp(middles, axis=0) > 15).all()
    assert len(ChunkCrop(100)(scan, np.random.default_rng(0))) == 4000
    empty = scan.take(np.array([], int))
    assert len(ChunkCrop(4)(empty, np.random.default_rng(0))) == 0
    with pytest.raises(ValueError, match="size must be a positive number of metres; got 0"):
        ChunkCrop(0)
