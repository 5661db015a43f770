"""Waymo's submission: its bytes, read here by hand, and what its server would refuse."""

import zlib

import numpy as np
import pytest

from geonorm.datasets import Waymo, waymo
from helpers.waymo_trees import NO_TURN, write_calibration, write_lidar, write_poses, write_vehicle

ACCOUNT, METHOD = "me@example.org", "Möwe"
# Ranges of two returns; 0 and less are none.
FIRST, SECOND = [[0, 10, -1], [5, 0, 20]], [[0, 0, 0], [0, 10, 0]]


@pytest.fixture
def submission(tmp_path, monkeypatch):
    """Return what Waymo takes for two frames, of which the second has no second return."""
    monkeypatch.setattr(waymo, "TEST_FRAMES", 2)
    images = np.zeros((2, 2, 3, 4))
    images[..., 0] = FIRST, SECOND
    folder, moved = tmp_path / "testing", tmp_path / "testing_location"
    for place, segment, time, second in ((folder, "s_1", 300, images[1]), (moved, "r", 7, None)):
        write_lidar(place, segment, {time: {1: images[0], 2: second}})
        write_calibration(place, segment, NO_TURN, [-0.1, 0.1])
        write_poses(place, segment, {time: np.zeros((2, 3, 6))})
        write_vehicle(place, segment, {time: NO_TURN})
    (tmp_path / "frames.txt").write_text("s_1,300\nr,7\n")
    scans = Waymo(tmp_path, "test", tmp_path / "frames.txt", account=ACCOUNT, method=METHOD)
    assert [(scan.name, len(scan)) for scan in scans] == [("s_1/300", 4), ("r/7", 3)]
    assert [scans.submission.num_points(scan.name) for scan in scans] == [4, 3]
    return scans.submission


def varint(data, at):
    """Return a number of 7 bits in a byte, the lowest first, and where it ends."""
    number = shift = 0
    while True:
        number |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return number, at


def fields(data):
    """Return the number and the value of each field of a message."""
    found, at = [], 0
    while at < len(data):
        key, at = varint(data, at)
        value, at = varint(data, at)
        assert key & 7 in (0, 2)
        if key & 7 == 2:
            value, at = data[at : at + value], at + value
        found.append((key >> 3, value))
    return found


def said(number, value):
    """Return a field as bytes."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    size = [*len(value).to_bytes(1)] if len(value) < 128 else [len(value) % 128 + 128,
                                                               len(value) // 128]  # fmt: skip
    return bytes([number << 3 | 2, *size]) + value


def message(*frames, account=ACCOUNT, method=METHOD):
    listed = b"".join(said(1, frame) for frame in frames)
    about = said(1, account.encode()) + said(2, method.encode()) + said(7, 2)
    return about + said(10, listed)


def matrix(classes, dims=(2, 3, 2)):
    """Return the image of classes, with instances of 0."""
    values = bytes(each for class_ in np.ravel(classes).tolist() for each in (0, class_))
    return zlib.compress(said(1, values) + said(2, b"".join(said(1, n) for n in dims)))


def frame(first, second, name=b"s_1", time=b"\x18\xac\x02", laser=1):
    """Return a frame; its time is a field of 300."""
    images = said(2, said(6, first)) + said(3, said(6, second))
    return said(1, said(1, laser) + images) + said(2, name) + time


RIGHT = matrix([[0, 1, 0], [18, 0, 22]])
ONE = frame(RIGHT, matrix([[0, 0, 0], [0, 15, 0]]))
OTHER = frame(matrix([[0, 2, 0], [3, 0, 4]]), matrix(np.zeros((2, 3), int)), b"r", b"\x18\x07")


def test_two_frames_by_hand(submission, tmp_path):
    """Predictions stand at the pixels of their points, the ids of Waymo behind an instance of 0."""
    kept = np.array([True, False, True, True])  # the others have the commonest class, 18
    submission.write(tmp_path / "parts", "r/7", np.array([1, 2, 3]), None)
    submission.write(tmp_path / "parts", "s_1/300", np.array([17, 17, 14]), kept)
    packed = tmp_path / submission.packed
    submission.pack(tmp_path / "parts", packed)
    assert packed.name == "submission.bin"
    *about, (last, frames) = fields(packed.read_bytes())
    assert about == [(1, ACCOUNT.encode()), (2, METHOD.encode()), (7, 2), (8, 0), (9, 0)]
    assert (last, [number for number, _ in fields(frames)]) == (10, [1, 1])
    expected = {
        (b"s_1", 300): ([0, 0, 0, 18, 0, 0, 0, 18, 0, 0, 0, 18], [0] * 9 + [15, 0, 0]),
        (b"r", 7): ([0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4], [0] * 12),
    }
    for _, each in fields(frames):
        (one, laser), (two, segment), (three, time) = fields(each)
        assert (one, two, three) == (1, 2, 3)
        (name, top), (first, image), (second, other) = fields(laser)
        assert (name, top, first, second) == (1, 1, 2, 3)
        for values, returned in zip(expected.pop((segment, time)), (image, other), strict=True):
            [(number, label)] = fields(returned)
            [(one, data), (two, shape)] = fields(zlib.decompress(label))
            assert (number, one, two, [*data]) == (6, 1, 2, values)
            assert fields(shape) == [(1, 2), (1, 3), (1, 2)]
    assert not expected


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (message(ONE), r"lacks 1 of 2 frames that Waymo takes, such as r/7; predict every scan"),
        (message(ONE, OTHER, frame(matrix([0]), matrix([0]), b"q")), r"holds q/300, which Waymo d"),
        (message(ONE, OTHER, ONE), r"hold each of the frames once; s_1/300 stands in it more"),
        (message(ONE, OTHER, account=""), r"submission.bin lacks account_name; Waymo takes noth"),
        (message(ONE, OTHER, method=""), r"submission.bin lacks unique_method_name; Waymo takes"),
        (message(ONE, OTHER)[:-1], r"submission.bin: expected Waymo's message SemanticSeg"),
        (message(frame(b"a", b"b"), OTHER), r"s_1/300 in .*, return 1: expected .* zlib's format;"),
        (message(frame(zlib.compress(b"\x0a\x05"), b""), OTHER), r"return 1: expected .*MatrixInt"),
        (message(frame(RIGHT, b""), OTHER), r"return 2: .* zlib's format"),
        (message(frame(RIGHT, matrix([0])), OTHER),
         r"return 2: expected an image of \(2, 3, 2\); got 2 values for the shape \(2, 3, 2\)"),
        (message(frame(matrix(np.ones((2, 3), int), (3, 2, 2)), b""), OTHER),
         r"return 1: expected an image of \(2, 3, 2\); got 12 values for the shape \(3, 2, 2\)"),
        (message(frame(matrix([[0, 1, 0], [0, 18, 22]]), b""), OTHER), r"return 1 holds the id 0;"),
        (message(frame(matrix([[0, 1, 0], [23, 0, 22]]), b""), OTHER), r"holds the id 23; .* 22"),
        (message(frame(b"", b"", laser=2), OTHER), r"must have one laser, 1 \(the to.*; got \[2\]"),
        (message(said(1, said(1, 1)) + ONE, OTHER), r"s_1/300 in .* one laser, .*; got \[1, 1\]"),
        (message(said(2, b"s_1") + b"\x18\xac\x02", OTHER), r"one laser, .*; got \[\]$"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else None,
)  # fmt: skip
def test_what_the_server_would_refuse(submission, tmp_path, data, match):
    path = tmp_path / "submission.bin"
    path.write_bytes(message(OTHER, ONE))
    submission.check(path)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=match):
        submission.check(path)


def test_frames_that_were_not_predicted_are_refused(submission, tmp_path):
    """Nothing is packed then, nor from a file that has another number of points."""
    packed, parts = tmp_path / "submission.bin", tmp_path / "parts"
    submission.write(parts, "s_1/300", np.array([1, 2, 3, 4]), None)
    with pytest.raises(ValueError, match=r"lacks 1 of 2 frames that Waymo takes, such as r/7"):
        submission.pack(parts, packed)
    submission.write(parts, "r/7", np.array([1, 2, 3, 4]), None)
    with pytest.raises(ValueError, match=r"r/7 in .*parts must hold 3 ids, .* of r/7; got 4"):
        submission.pack(parts, packed)
    assert [*tmp_path.glob("*.bin")] == []


def test_the_whole_list_and_a_name_are_wanted(submission, tmp_path, monkeypatch):
    frames = tmp_path / "frames.txt"
    named = {"account": ACCOUNT, "method": METHOD}
    for lacking in named:
        scans = Waymo(tmp_path, "test", frames, **named | {lacking: None})
        with pytest.raises(ValueError, match=r"waymo.com/open and a short name .*account= and met"):
            _ = scans.submission
    assert Waymo(tmp_path, "test", frames, "dglss", **named).submission is None
    for listed, count in (("r,7\nr,7\n", 1), ("s_1,300\nr,7\nr,8\n", 3)):
        frames.write_text(listed)
        with pytest.raises(ValueError, match=rf"takes all 2 frames of 3d_sem.*; got {count}: te"):
            _ = Waymo(tmp_path, "test", frames, **named).submission
    monkeypatch.undo()
    assert waymo.TEST_FRAMES == 2982
