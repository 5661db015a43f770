"""What the figures of a training show: numbers, colours and names, read from what is drawn."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from geonorm.training.action.pictures import RIGHT, WRONG, ShownClip, draw_clips, draw_strip
from geonorm.training.figures import confusion_figure, curve_figure, plt, printable
from geonorm.training.segmentation.pictures import SegmentedScan, _legend, draw_scans
from geonorm.training.shift.comparison import Comparison
from geonorm.training.shift.heat_map import draw
from geonorm.training.shift.measures import Scores
from helpers.rendering import skip_without_rendering


@pytest.fixture
def drawn(monkeypatch):
    """Return the list of figures, which are kept where they would be closed."""
    figures = []
    with monkeypatch.context() as patch:
        patch.setattr(plt, "close", figures.append)
        yield figures
    for figure in figures:
        plt.close(figure)


def test_a_confusion_matrix_shows_the_parts_of_each_true_class(drawn, tmp_path):
    matrix = np.array([[3, 1, 0], [0, 0, 0], [6, 4, 990]])
    confusion_figure(matrix, ["a", "b", "c"], "of three", tmp_path / "confusion.png")
    axes = drawn[0].axes[0]
    shares = [[0.75, 0.25, 0], [0, 0, 0], [0.006, 0.004, 0.99]]
    assert np.allclose(axes.images[0].get_array(), shares)
    assert axes.images[0].get_clim() == (0, 1)
    assert {text.get_position(): (text.get_text(), text.get_color()) for text in axes.texts} == {
        (0, 0): ("75%", "white"), (1, 0): ("25%", "black"),
        (0, 2): ("1%", "black"), (2, 2): ("99%", "white"),
    }  # fmt: skip
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert axes.get_title() == "of three"
    assert (tmp_path / "confusion.png").is_file()


def test_curves_are_those_of_the_columns(drawn, tmp_path):
    rows = ["step,train/loss,val/score", "1,2.5,", "3,1.5,", "3,,0.25", "6,0.5,", "7,,0.75", ""]
    (tmp_path / "metrics.csv").write_text("\n".join(rows))
    path = tmp_path / "curve.png"
    assert curve_figure(tmp_path / "metrics.csv", "train/loss", "val/score", path)
    losses, scores = drawn[0].axes
    assert losses.lines[0].get_xydata().tolist() == [[1, 2.5], [3, 1.5], [6, 0.5]]
    assert scores.lines[0].get_xydata().tolist() == [[3, 0.25], [7, 0.75]]
    assert scores.get_ylim() == (0, 1)
    assert losses.get_ylim()[0] == 0
    assert path.is_file()


def test_losses_are_drawn_before_there_is_a_score(drawn, tmp_path):
    (tmp_path / "metrics.csv").write_text("step,train/loss\n1,2.5\n3,1.5\n")
    path = tmp_path / "curve.png"
    assert curve_figure(tmp_path / "metrics.csv", "train/loss", "val/score", path)
    losses, scores = drawn[0].axes
    assert losses.lines[0].get_xydata().tolist() == [[1, 2.5], [3, 1.5]]
    assert len(scores.lines[0].get_xydata()) == 0
    assert path.is_file()


def test_names_that_are_no_utf8_can_be_drawn():
    assert printable("b\udcff ü.mp4") == r"b\xff ü.mp4"


def test_where_no_step_was_made_there_is_no_curve(drawn, tmp_path):
    (tmp_path / "metrics.csv").write_text("step,val/score\n0,0.5\n")
    path = tmp_path / "curve.png"
    assert not curve_figure(tmp_path / "metrics.csv", "train/loss", "val/score", path)
    assert not path.exists()


def test_clips_are_shown_as_they_were_before_they_were_normalized(drawn, tmp_path):
    frames = torch.rand(3, 3, 10, 4, 6)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])
    videos = (frames - mean.view(3, 1, 1, 1)) / std.view(3, 1, 1, 1)
    videos[0, :, 0] += 20  # brighter than white
    clips = [ShownClip(videos[0], 0, 1, 0.625), ShownClip(videos[1], 1, 1, 0.9),
             ShownClip(videos[2], -1, 0, 0.5)]  # fmt: skip
    draw_clips(clips, ["up", "down"], mean.tolist(), std.tolist(), "three", tmp_path / "clips.png")
    rows = np.array(drawn[0].axes).reshape(3, 8)
    shown = np.stack([[axes.images[0].get_array() for axes in row] for row in rows])
    numbers = [0, 1, 3, 4, 5, 6, 8, 9]
    expected = frames[:, :, numbers].permute(0, 2, 3, 4, 1).numpy()
    assert np.abs(shown[0, 1:] - expected[0, 1:]).max() < 1e-6
    assert np.abs(shown[1:] - expected[1:]).max() < 1e-6
    assert (shown[0, 0] == 1).all()
    labels = [row[0].yaxis.label for row in rows]
    assert [label.get_text() for label in labels] == ["down 0.62\nis up", "down 0.90", "up 0.50"]
    assert [label.get_color() for label in labels] == [WRONG, RIGHT, WRONG]
    assert drawn[0].get_suptitle() == "three"


def test_a_strip_has_the_time_of_each_frame_and_the_bars_of_the_classes(drawn, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 6, 8, 3), dtype=np.uint8)
    path = tmp_path / "strip.png"
    draw_strip(frames, [0.0, 1.25, 2.5], ["wave", "jump"], [0.75, 0.25], "a.mp4", path)
    *pictures, bars = drawn[0].axes
    assert all(np.array_equal(axes.images[0].get_array(), frame)
               for axes, frame in zip(pictures, frames, strict=True))  # fmt: skip
    assert [axes.get_title() for axes in pictures] == ["0.0 s", "1.2 s", "2.5 s"]
    assert [bar.get_width() for bar in bars.patches] == [0.75, 0.25]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["wave", "jump"]
    assert bars.get_ylim()[0] > bars.get_ylim()[1]  # the highest above
    assert bars.get_xlim() == (0, 1)
    assert [(text.get_text(), text.get_position()[1]) for text in bars.texts] == [
        ("0.75", 0), ("0.25", 1)]  # fmt: skip
    assert drawn[0].subfigs[0].get_suptitle() == "a.mp4"
    assert path.is_file()


def test_scans_are_shown_with_truth_prediction_and_errors(drawn, tmp_path):
    colors = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)
    points = np.random.default_rng(0).uniform(-9, 9, (4, 3)).astype(np.float32)
    labels, predicted = np.array([0, 1, 255, 1]), np.array([0, 0, 2, 1])
    scans = [SegmentedScan("known", points, predicted, labels),
             SegmentedScan("unknown", points, predicted, np.full(4, 255))]  # fmt: skip
    grey, right, wrong = [80, 80, 80], [130, 150, 170], [255, 30, 30]
    true, guessed, error = scans[0].panels(colors).values()
    assert true.tolist() == [[10, 20, 30], [40, 50, 60], grey, [40, 50, 60]]
    assert guessed.tolist() == [[10, 20, 30], [10, 20, 30], [70, 80, 90], [40, 50, 60]]
    assert error.tolist() == [right, wrong, grey, right]
    assert [*scans[0].panels(colors)] == [
        "true", "predicted", "wrong points in red (66.7% of the labelled points are right)"
    ]  # fmt: skip
    for scan, named in zip(scans, (["a", "b", "c", "no label"], ["a", "b", "c"]), strict=True):
        handles = _legend(scan, ["a", "b", "c"], colors)
        assert [handle.get_label() for handle in handles] == named
        assert handles[1].get_color().tolist() == [40 / 255, 50 / 255, 60 / 255]
    alike = SegmentedScan("b alone", points, np.ones(4, int), np.ones(4, int))
    assert [handle.get_label() for handle in _legend(alike, ["a", "b", "c"], colors)] == ["b"]
    assert [*scans[1].panels(colors)] == ["predicted"]

    skip_without_rendering()
    paths = [tmp_path / "known.png", tmp_path / "unknown.png"]
    draw_scans(scans, ["road", "car", "tree"], colors, paths)
    assert all(path.is_file() for path in paths)
    titles = [[axes.get_title() for axes in figure.axes if axes.images] for figure in drawn]
    of_errors = "wrong points in red (66.7% of the labelled points are right)"
    assert titles == [["true", "predicted", of_errors], ["predicted"]]
    legends = [figure.axes[-1].get_legend() for figure in drawn]
    assert [[text.get_text() for text in legend.get_texts()] for legend in legends] == [
        ["road", "car", "tree", "no label"], ["road", "car", "tree"],
    ]  # fmt: skip
    squares = [np.round(255 * np.array(to_rgb(line.get_color()))) for line in
               legends[0].get_lines()]  # fmt: skip
    assert np.array_equal(squares, [*colors, grey])
    assert [len(figure.axes) for figure in drawn] == [4, 2]


def test_a_heat_map_has_every_score_beside_the_clean_one(drawn, tmp_path):
    scored = {"fog": {1: (0.6, 0.3), 2: (0.2, 0.7)}, "rain": {1: (0.4, 0.1)},
              "snow": {2: (0.0, 0.9)}}  # fmt: skip
    networks = {"one": Scores((0.8, 0.5), scored),
                "two": Scores((0.0, 0.2), {name: {1: (0.1, 0.4)} for name in scored})}  # fmt: skip
    groups = {"Robo3D": ["fog", "rain"], "others": ["snow"]}
    comparison = Comparison(networks, groups, "mIoU", ("one", networks["one"]), {}, {})
    draw(comparison, tmp_path / "heat_map.png")
    one, two, bar = drawn[0].axes
    np.testing.assert_allclose(
        one.images[0].get_array().filled(np.nan), [[0.75, 0.25], [0.5, np.nan], [np.nan, 0.0]]
    )
    assert one.images[0].get_clim() == (0, 1)
    assert {text.get_position(): (text.get_text(), text.get_color()) for text in one.texts} == {
        (0, 0): ("60.0", "black"), (1, 0): ("20.0", "white"), (0, 1): ("40.0", "black"),
        (1, 2): ("0.0", "white"),
    }  # fmt: skip
    assert two.images[0].get_array().mask.all()  # of a clean score of 0 there are no parts
    assert [text.get_text() for text in two.texts] == ["10.0"] * 3
    assert [label.get_text() for label in one.get_yticklabels()] == ["fog", "rain", "snow"]
    assert [label.get_text() for label in one.get_xticklabels()] == ["1", "2"]
    assert [axes.get_title() for axes in (one, two)] == ["one\nclean 80.0", "two\nclean 0.0"]
    assert [line.get_ydata()[0] for line in one.lines] == [1.5]  # between the groups
    assert bar.get_ylabel() == "part of the clean mIoU"
    assert (tmp_path / "heat_map.png").is_file()
