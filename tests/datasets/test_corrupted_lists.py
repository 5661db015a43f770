"""Broken lists of videos, hundreds of them, through every reader: read or refused in words."""

import json
from collections import Counter

import pytest

from geonorm.datasets import HMDB51, UCF101, Diving48, Kinetics, SomethingSomethingV2, VideoList
from helpers.broken_files import broken, outcome


def table(*lines):
    return "\n".join(lines).encode()


def as_json(value):
    return json.dumps(value, indent=1).encode()


# For each kind of list: what reads it, its files, and the one that is broken first of all.
LISTS = {
    "list": (
        lambda root: VideoList(root / "list.txt"),
        {"list.txt": table("a/b c.mp4 0", "d.mp4 17 3", "e.mp4 2")},
    ),
    "UCF101": (
        lambda root: UCF101(root, root, "train"),
        {
            "trainlist01.txt": table("Jump/v_1.avi 1", "Run/v_2.avi 2", "Run/v_3.avi 2"),
            "classInd.txt": table("1 Jump", "2 Run"),
        },
    ),
    "HMDB51": (
        lambda root: HMDB51(root, root, "train"),
        {"jump_test_split1.txt": table("a #(1).avi 1", "b.avi 2", "c.avi 0", "d.avi 1")},
    ),
    "Kinetics": (
        lambda root: Kinetics(root, root / "train.csv"),
        {
            "train.csv": table(
                "label,youtube_id,time_start,time_end,split", "jumping,abc,1,11,train",
                '"running, far",def,2.5,12.5,train', "jumping,ghi,0,10,train",
            )
        },
    ),
    "SomethingSomethingV2": (
        lambda root: SomethingSomethingV2(root, root / "train.json", root / "labels.json"),
        {
            "train.json": as_json([
                {"id": "1", "template": "Holding [something]"},
                {"id": "2", "template": "Dropping [something]"}, {"id": "3"},
            ]),
            "labels.json": as_json({"Holding something": "0", "Dropping something": "1"}),
        },
    ),
    "Diving48": (
        lambda root: Diving48(root, root / "train.json", root / "vocabulary.json"),
        {
            "train.json": as_json([{"vid_name": "a", "label": 0}, {"vid_name": "b", "label": 1}]),
            "vocabulary.json": as_json([["Back", "15som"], ["Forward", "25som"]]),
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LISTS)
def test_lists(tmp_path, kind):
    read, files = LISTS[kind]
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    read(tmp_path)
    outcomes = Counter()
    for name, whole in files.items():
        for data in broken(whole, 60):
            (tmp_path / name).write_bytes(data)
            outcomes[outcome(read, tmp_path)] += 1
        (tmp_path / name).write_bytes(whole)
    assert outcomes["refused"] >= 20


# One value in place of another, of every kind that JSON knows, and what text can hold.
VALUES = [None, True, -1, 1.5, 10**30, float("inf"), float("nan"), "", "x" * 999, "\0", [], [1], {}]


@pytest.mark.parametrize("kind", ["SomethingSomethingV2", "Diving48"])
def test_json_of_other_types(tmp_path, kind):
    read, files = LISTS[kind]
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    for name, whole in files.items():
        for place in range(8):
            for value in VALUES:
                (tmp_path / name).write_bytes(as_json(replaced(json.loads(whole), place, value)))
                outcome(read, tmp_path)
        (tmp_path / name).write_bytes(whole)


def replaced(tree, place, value):
    """Return the tree with its node of that number, in depth-first order, replaced."""
    nodes = []

    def collect(node):
        for key in range(len(node)) if isinstance(node, list) else node:
            nodes.append((node, key))
            if isinstance(node[key], list | dict):
                collect(node[key])

    collect(tree)
    if place >= len(nodes):
        return value
    node, key = nodes[place]
    node[key] = value
    return tree


@pytest.mark.parametrize("value", ["", "x" * 999, "\0", "inf", "nan", "-1", "1e400", "a,b", '"'])
@pytest.mark.parametrize("column", range(5))
def test_csv_of_other_values(tmp_path, column, value):
    row = ["jumping", "abc", "1", "11", "train"]
    row[column] = value
    header = b"label,youtube_id,time_start,time_end,split\n"
    (tmp_path / "train.csv").write_bytes(header + ",".join(row).encode())
    outcome(LISTS["Kinetics"][0], tmp_path)


@pytest.mark.parametrize(
    ("kind", "file", "text", "message"),
    [
        ("Diving48", "train.json", "[{", r"train.json cannot be read as JSON: "),
        ("Diving48", "train.json", "[" * 99_999, r"train.json cannot be read as JSON: "),
        ("Diving48", "train.json", "{}", r"train.json: expected a JSON list; got dict"),
        ("Diving48", "train.json", "[3]", r"train.json: expected `vid_name` and `label`; got 3"),
        (
            "Diving48", "train.json", '[{"vid_name": "a", "label": 1.5}]',
            r"train.json: expected a whole number as the label; got 1.5",
        ),
        ("SomethingSomethingV2", "labels.json", "[]", r"labels.json: expected a JSON dict; got li"),
        ("SomethingSomethingV2", "train.json", "[{}]", r"train.json: expected items with an `id`"),
        (
            "Kinetics", "train.csv", "label,youtube_id,time_start,time_end,split\na,b,1,inf,train",
            r"train.csv, row 2: expected youtube_id, time_start and time_end in seconds",
        ),
        ("Kinetics", "train.csv", "label\n" + "x" * 200_000, r"train.csv, line 1: no CSV: field"),
        ("list", "list.txt", "a.mp4 99999999999", r"line 1: .*a whole number below a million; got"),
    ],
)  # fmt: skip
def test_lists_say_what_is_wrong_and_where(tmp_path, kind, file, text, message):
    read, files = LISTS[kind]
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("label", ["99999999999", "9" * 5000, "-3", "1e3", "0x1", "٣", "\0"])
def test_labels_of_a_list(tmp_path, label):
    (tmp_path / "list.txt").write_text(f"a.mp4 {label}\n")
    what = outcome(VideoList, tmp_path / "list.txt")
    assert what == ("read" if label == "٣" else "refused")
