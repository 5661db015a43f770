"""What geonorm view reads: labels, predictions and videos; and what it says of wrong ones."""

import base64
import json
import os
import re
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from geonorm.__main__ import main as command
from geonorm.datasets import SemanticKITTI
from geonorm.datasets.label_ids import distinct_color
from geonorm.looking import clips, columns, scans
from geonorm.looking.page import as_script, packed, viewer
from geonorm.looking.scans import Legend, panels
from geonorm.style import StyleStatistics
from geonorm.training.action.predict import write_film
from geonorm.training.attributions import write_statistics
from helpers.scan_writers import rows, write
from helpers.video_files import encode, numbered_film


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with a scan of six points, of which the second is not finite."""
    monkeypatch.chdir(tmp_path)
    points = rows(6)
    points[1, 0] = np.nan
    write(tmp_path / "a.bin", points)
    (tmp_path / "guess").mkdir()
    (tmp_path / "guess/classes.json").write_text('{"lake": 5, "dune": 9}')
    return tmp_path


def columns_of(panel):
    return {column.name: column for column in panel.columns}


def decoded(address):
    """Return the pixels of a picture of a page."""
    return np.asarray(Image.open(BytesIO(base64.b64decode(address.split(",")[1]))))


def named(column):
    return [column.names[number] for number in column.index]


def test_labels_are_of_the_points_that_are_left(folder):
    np.array([40, 10, 10 | 3 << 16, 0, 252, 40], "<u4").tofile("a.label")
    found = columns_of(panels([folder / "a.bin"], [folder / "a.label"])[0])
    assert named(found["class"]) == ["road", "car", "no label", "car", "road"]
    assert named(found["instance"]) == ["none", "3", "none", "none", "none"]
    car = SemanticKITTI.colors[0].tolist()
    assert found["class"].painted().tolist()[1] == car
    assert "prediction" not in found
    np.array([40, 10, 10, 0, 252, 40], "<u4").tofile("a.label")
    assert "instance" not in columns_of(panels([folder / "a.bin"], [folder / "a.label"])[0])


def test_predictions_of_other_classes_are_read_by_their_own_table(folder):
    np.array([5, 9, 0, 5, 9, 9], "<u4").tofile("guess/a.label")
    np.save("a.npy", np.array([0, 0, 1, 255, 1, 0]))
    found = columns_of(panels([folder / "a.bin"], [folder / "a.npy"], [folder / "guess"])[0])
    assert named(found["prediction"]) == ["lake", "no label", "lake", "dune", "dune"]
    assert named(found["class"]) == ["lake", "dune", "no label", "dune", "lake"]
    assert named(found["error"]) == ["right", "wrong", "no label", "right", "wrong"]
    assert found["class"].colors.tolist() == [
        [*distinct_color(0)], [*distinct_color(1)], [80, 80, 80],
    ]  # fmt: skip


def test_numbers_of_known_classes_are_places_in_the_table(tmp_path):
    """classes.json of `--format npy` counts a network's classes; here in another order."""
    np.save(tmp_path / "a.npy", np.array([0, 1, 255]))
    labels, _ = Legend({"road": 0, "car": 1}).read(tmp_path / "a.npy", 3)
    assert labels.tolist() == [8, 0, 255]
    assert [Legend().names[number] for number in labels[:2]] == ["road", "car"]


def test_a_scale_ends_at_the_percentiles_of_its_values():
    numbers = np.r_[np.linspace(0, 10, 1001), 1000.0]
    column = columns.values("height", numbers)
    assert (column.low, column.high) == pytest.approx(np.percentile(numbers, (1, 99)))
    assert (column.index[0], column.index[500], column.index[-1]) == (0, 127, 255)
    assert column.colors[[0, 255]].tolist() == [[68, 1, 84], [253, 231, 37]]
    flat = columns.values("height", np.full(9, 3.0))
    assert (set(flat.index), flat.low, flat.high) == ({0}, 3.0, 3.0)


def test_attributions_are_coloured_evenly_about_zero():
    numbers = np.r_[np.full(98, 2.0), -1.0, 0.0, 1.0, -50.0]
    column = columns.attributions(numbers)
    assert (column.low, column.high) == (-2.0, 2.0)
    assert column.index[[0, -4, -3, -2, -1]].tolist() == [255, 64, 128, 191, 0]
    assert column.painted()[[0, -1]].tolist() == [[255, 210, 90], [120, 200, 255]]
    none = columns.attributions(np.zeros(4))
    assert (none.low, none.high, {*none.index}) == (-1.0, 1.0, {128})


def test_frames_spread_over_a_video_and_have_its_times(folder, monkeypatch):
    encode(folder / "a.mp4", numbered_film(9))
    (whole,) = clips.clips([folder / "a.mp4"])
    step = whole["seconds"][1]
    assert step > 0
    assert (whole["title"], tuple(whole["size"])) == ("a.mp4", (48, 96))
    assert whole["numbers"] == [*range(9)]
    assert whole["seconds"] == pytest.approx([step * number for number in range(9)])
    assert whole["duration"] == pytest.approx(step * 9)
    monkeypatch.setattr(clips, "MOST_FRAMES", 3)
    monkeypatch.setattr(clips, "SHORT_SIDE", 24)
    (some,) = clips.clips([folder / "a.mp4"])
    assert some["numbers"] == [0, 4, 8]
    assert some["seconds"] == pytest.approx([0, step * 4, step * 8])
    assert tuple(some["size"]) == (24, 48)
    assert [decoded(frame).shape for frame in some["frames"]] == [(24, 48, 3)] * 3
    assert all(frame.startswith("data:image/jpeg;base64,") for frame in some["frames"])


def test_a_film_whose_times_are_given_is_shown_at_them(folder, monkeypatch):
    options = {"bf": "0"}
    encode(folder / "a.mp4", numbered_film(5), times=[0, 10, 30, 40, 90], options=options)
    encode(folder / "b.mp4", numbered_film(5), rate=10)
    shown, even = clips.clips([folder / "a.mp4", folder / "b.mp4"])
    assert shown["numbers"] == even["numbers"] == [0, 1, 2, 3, 4]
    assert shown["seconds"] == pytest.approx([0, 0.1, 0.3, 0.4, 0.9])
    assert shown["duration"] == pytest.approx(0.9 * 5 / 4)
    write_film(folder / "a.mp4", np.eye(3)[:, :2], ["wave", "jump"], folder / "told")
    parts = json.loads((folder / "told.scores.json").read_text())["views"]
    assert [part["to"] for part in parts] == pytest.approx([0.375, 0.75, 1.125])
    assert even["seconds"] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert even["duration"] == pytest.approx(0.5)
    monkeypatch.setattr(clips, "MOST_FRAMES", 3)
    assert clips.clips([folder / "a.mp4"])[0]["seconds"] == pytest.approx([0, 0.3, 0.9])


def test_attributions_and_statistics_are_of_the_points_that_are_left(folder):
    np.array([5, 9, 0, 5, 9, 9], "<u4").tofile("guess/a.label")
    values = np.array([[1, 2], [50, 60], [-3, 0], [4, -1], [-2, -2], [0, 9]], "<f4")
    np.save("guess/a.attribution.npy", values)
    style = StyleStatistics(torch.tensor([[0.5, -0.5]]), torch.ones(1, 2))
    write_statistics(folder / "guess" / "a", {"bn1": style})
    (panel,) = panels([folder / "a.bin"], [], [folder / "guess"])
    column = columns_of(panel)["attribution"]
    expected = columns.attributions(np.float32([3, -3, 3, -4, 9]))
    assert (column.index.tolist(), column.high) == (expected.index.tolist(), expected.high)
    assert panel.content()["statistics"] == [
        {"name": "bn1", "mean": [[0.5, -0.5]], "std": [[1, 1]]}]  # fmt: skip
    for shape in ((6,), (5, 2), (7, 2)):
        np.save("guess/a.attribution.npy", np.zeros(shape, "<f4"))
        with pytest.raises(ValueError, match=r"numbers for each of 6 points, \(6, features\); got"):
            panels([folder / "a.bin"], [], [folder / "guess"])


def test_a_scan_whose_intensities_are_0_has_no_colours_of_them(folder):
    write(folder / "dark.bin", rows(6) * np.float32([1, 1, 1, 0]))
    dark, lit = panels([folder / "dark.bin", folder / "a.bin"])
    assert [*columns_of(dark)] == ["height"]
    assert [*columns_of(lit)] == ["intensity", "height"]


def test_an_attribution_of_nothing_is_not_seen(folder):
    told = {"frames": np.array([[2, 4]]), "box": np.array([0.0, 0.0, 1.0, 1.0])}
    np.savez(folder / "a.npz", values=np.zeros((1, 2, 8, 8), "f4"), **told)
    heat = clips._heat(folder / "a.npz", range(6))
    assert heat["at"] == [None, 0, 0, 0, 1, 1]
    assert not decoded(heat["pictures"][0])[..., 3].any()


def test_scores_of_the_highest_classes_are_told(folder):
    encode(folder / "a.mp4", numbered_film(3))
    scores = [{"a": 0.1, "b": 0.5, "c": 0.0, "d": 0.15, "e": 0.1, "f": 0.15},
              {"a": 0.3, "b": 0.05, "c": 0.0, "d": 0.2, "e": 0.05, "f": 0.45}]  # fmt: skip
    views = [{"from": place, "to": place + 2, "scores": each} for place, each in enumerate(scores)]
    (folder / "guess/a.scores.json").write_text(json.dumps({"views": views}))
    (found,) = clips.clips([folder / "a.mp4"], [folder / "guess"])
    assert found["title"] == f"a.mp4, {folder / 'guess'}"
    assert found["names"] == ["f", "b", "a", "d", "e"]
    assert found["views"][1] == {"from": 1, "to": 3, "scores": [0.45, 0.05, 0.3, 0.2, 0.05]}
    assert found["heat"] is None


def test_an_attribution_is_that_of_the_nearest_frame(folder):
    values = np.ones((2, 3, 8, 8), "f4")
    values[0, 0, 0, :3] = 0, 0.25, -1
    values[1] = -1
    values[0, 2, 7, 7] = 50
    told = {"frames": np.array([[3, 5, 7], [5, 7, 9]]), "box": np.array([0.1, 0.2, 0.7, 0.8])}
    np.savez(folder / "a.npz", values=values, **told)
    heat = clips._heat(folder / "a.npz", range(12))
    assert heat["box"] == [0.1, 0.2, 0.7, 0.8]
    assert heat["at"] == [None, None, 0, 0, 0, 1, 1, 2, 2, 3, 3, None]
    assert len(heat["pictures"]) == 4
    first, last = decoded(heat["pictures"][0]), decoded(heat["pictures"][3])
    assert first[0, :4, 3].tolist() == [0, 128, 255, 255]
    assert first[4, 4, 0] > first[4, 4, 2] + 100
    assert last[4, 4, 2] > last[4, 4, 0] + 100
    np.savez(folder / "one.npz", values=values[:1, :1], **told | {"frames": np.array([[5]])})
    assert clips._heat(folder / "one.npz", range(3, 8))["at"] == [None, None, 0, None, None]
    np.savez(folder / "odd.npz", values=values[:1], **told | {"frames": np.array([[1, 2, 8]])})
    assert clips._heat(folder / "odd.npz", range(9))["at"] == [0, 0, 1, 1, None, None, None, 2, 2]


def test_more_instances_than_colours_share_them():
    column = columns.instances(np.arange(600))
    assert column.index[0] == 0
    assert column.index[1] == column.index[256] == column.index[511]
    assert column.names[column.index[1]] == "1, 256, 511"
    assert len(set(column.index[1:256])) == 255


def test_large_scans_are_thinned_and_say_so(folder, monkeypatch):
    monkeypatch.setattr(scans, "MOST_POINTS", 6)
    write(folder / "b.npy", rows(100))
    first, second = panels([folder / "a.bin", folder / "b.npy"])
    assert (first.title, second.title) == ("a.bin (3 of 5 points)", "b.npy (3 of 100 points)")
    assert np.array_equal(second.points, rows(100)[[0, 49, 99], :3])
    assert len(second.columns[0].index) == 3
    np.save("guess/b.npy", np.arange(100) % 2)
    np.save("guess/a.npy", np.zeros(6, int))
    twice = panels([folder / "a.bin", folder / "b.npy"], predictions=[folder / "guess"] * 2)
    assert [len(panel.points) for panel in twice] == [1] * 4
    monkeypatch.setattr(scans, "MOST_POINTS", 10)
    whole, thinned = panels([folder / "a.bin", folder / "b.npy"])
    assert (whole.title, len(thinned.points)) == ("a.bin", 5)


def test_a_page_holds_names_as_text_and_numbers_as_bytes():
    evil = "</script><script>alert('&')</script>"
    page = viewer(evil, ["common.js"], {"title": evil, "nan": float("nan"), "rows": [1.0, None]})
    assert page.count("<script") == 2
    assert "<title>&lt;/script&gt;" in page
    told = re.search(r'id="content">(.*?)</script>', page)[1]
    assert json.loads(told) == {"title": evil, "nan": None, "rows": [1.0, None]}
    assert "<" not in as_script(evil)
    assert not re.search(r"(src|href)=\"?(http|//)", page)
    numbers = np.array([1, -2.5], ">f4")
    assert np.frombuffer(base64.b64decode(packed(numbers)), "<f4").tolist() == [1, -2.5]


def refusal(*words):
    said = command(["view", *map(str, words)])
    assert not os.path.exists("view.html"), "a page was written after all"
    return said


def test_wrong_input_is_explained(folder):
    np.zeros(5, "<u4").tofile("short.label")
    np.full(6, 77, "<u4").tofile("odd.label")
    np.save("odd.npy", np.full(6, 40))
    np.save("beyond.npy", np.array([0, 0, 256, 0, 0, 0]))
    np.save("below.npy", np.array([0, 0, 0, -1, 0, 0]))
    np.save("real.npy", np.zeros(6))
    np.save("short.npy", np.zeros(5, int))
    np.save("long.npy", np.zeros(7, int))
    (folder / "text.txt").write_text("no labels")
    encode(folder / "a.mp4", numbered_film(4))
    (folder / "empty").mkdir()
    for words, says in [
        (["a.bin", "--labels", "short.label"], "must hold 6 labels of 4 bytes"),
        (["a.bin", "--labels", "odd.label"], r"class id 77 \(6 points\)"),
        (["a.bin", "--labels", "odd.npy"], "holds class 40; expected 0 to 18, or 255"),
        (["a.bin", "--labels", "beyond.npy"], "holds class 256; expected 0 to 18, or 255"),
        (["a.bin", "--labels", "below.npy"], "holds class -1; expected 0 to 18, or 255"),
        (["a.bin", "--labels", "real.npy"], r"whole number for each of 6 points.*float64 \(6,\)"),
        (["a.bin", "--labels", "short.npy"], r"for each of 6 points.*int64 \(5,\)"),
        (["a.bin", "--labels", "long.npy"], r"for each of 6 points.*int64 \(7,\)"),
        (["a.bin", "b.bin", "--labels", "odd.npy"], "one file for each scan, 2; got 1"),
        (["a.bin", "--labels", "text.txt"], r"ends in \.label or \.npy"),
        (["a.bin", "--labels", "none.label"], "none.label is not a file"),
        (["a.bin", "--labels", "odd.npy", "odd.npy"], "one file for each scan, 1; got 2"),
        (["a.bin", "--predictions", "empty"], "no empty/classes.json"),
        (["a.bin", "--predictions", "guess"], "guess has no a.label and no a.npy"),
        (["a.bin", "--color", "hight"], "no colour 'hight'.*Did you mean 'height'"),
        (["a.bin", "a.mp4"], "scans or videos, not both; got a.bin and a.mp4"),
        (["a.mp4", "--labels", "short.label"], "--labels is of scans"),
        (["a.mp4", "--color", "height"], "--color is of scans"),
        (["a.mp4", "--window", "true"], "--window is of scans"),
        (["a.mp4", "--predictions", "empty"], r"no empty/a\.scores\.json"),
        (["b.mp4"], "b.mp4 cannot be opened"),
        (["b.bin"], "b.bin is not a file"),
    ]:  # fmt: skip
        assert re.search(says, refusal(*words)), (words, refusal(*words))


def content_of(page):
    return json.loads(re.search(r'id="content">(.*?)</script>', page.read_text())[1])


def test_what_is_asked_of_a_page_is_in_it(folder, capsys):
    points = rows(6) * np.float32([1, 1, 1, 100])
    points.tofile(folder / "a.BIN")
    np.array([5, 9, 0, 5, 9, 9], "<u4").tofile("guess/a.label")
    words = ["a.BIN", "--predictions", "guess", "guess", "--out", "new/b.html"]
    command(["view", *words, "--color", "height", "--intensity_max", "200"])
    assert capsys.readouterr().out.startswith("new/b.html (0.")
    told = content_of(folder / "new/b.html")
    assert told["color"] == "height"
    assert [panel["title"] for panel in told["panels"]] == ["a.BIN, guess"] * 2
    first = told["panels"][0]
    assert [column["name"] for column in first["columns"]] == ["prediction", "intensity", "height"]
    strength = np.percentile(points[:, 3] / 200, (1, 99))
    assert [first["columns"][1][end] for end in ("low", "high")] == pytest.approx(strength)
    assert (first["columns"][0]["low"], first["columns"][0]["high"]) == (0, 0)
    assert base64.b64decode(first["points"]) == points[:, :3].astype("<f4").tobytes()
    assert "<title>a.BIN</title>" in (folder / "new/b.html").read_text()
    command(["view", "a.bin", "a.BIN", "--intensity_max", "200"])
    assert "<title>a.bin, a.BIN</title>" in (folder / "view.html").read_text()
    assert content_of(folder / "view.html")["color"] is None


def test_a_window_needs_a_screen(folder, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert "--window needs a screen" in refusal("a.bin", "--window", "true")
    write(folder / "b.npy", rows(3))
    assert "--window shows one scan; got 2" in refusal("a.bin", "b.npy", "--window", "true")
