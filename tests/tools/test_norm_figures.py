"""Figures of the norms: each gradient pattern against a rule, and each drawing against both."""

from pathlib import Path

import draw_norms
import matplotlib.colors
import pytest
import torch

import documentation.dependence as drawn
import geonorm
from documentation.drawing import CHOSEN, COLOURS, DEPENDENT, OTHER, draw, layout

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "figures" / "norms"
INDEX, DOMAIN = torch.tensor(drawn.SCANS), torch.tensor(drawn.DOMAINS)
B, T, P = drawn.ELEMENT[0], drawn.ELEMENT[2], drawn.ELEMENT[3]
WIDE = drawn.PLACES[1]
# Of instance b, channel c, frame or row of a picture t, and place p: what the output depends on.
INSTANCE_1, CHANNEL_1 = (lambda b, c, t, p: b == 1), (lambda b, c, t, p: c == 1)


def both(*conditions):
    return lambda *place: torch.stack([torch.as_tensor(one(*place)) for one in conditions]).all(0)


def itself(b, c, t, p):
    return (b == B) & (c == 1) & (t == T) & (p == P)


def near(b, c, t, p):
    # Pooled twice, so two windows of three reach two far.
    return ((t - T).abs() <= 2) & ((p - P).abs() <= 2)


ONE_CHANNEL = both(INSTANCE_1, CHANNEL_1)
SAME_FRAME = both(ONE_CHANNEL, lambda b, c, t, p: t == T)
SAME_PLACE = both(ONE_CHANNEL, lambda b, c, t, p: p == P)
SAME_LINE = both(SAME_FRAME, lambda b, c, t, p: p // WIDE == P // WIDE)
GROUP = both(INSTANCE_1, lambda b, c, t, p: c < 2)
SAME_DOMAIN = both(CHANNEL_1, lambda b, c, t, p: DOMAIN[b] == DOMAIN[1])
NEAR, NEAR_GROUP = both(ONE_CHANNEL, near), both(GROUP, near)
NEAR_ROW = both(ONE_CHANNEL, lambda b, c, t, p: near_rows()[t])
LAWS = {
    "instance_norm": [ONE_CHANNEL, ONE_CHANNEL],
    "axis_instance_norm": [ONE_CHANNEL, SAME_FRAME, SAME_PLACE, SAME_LINE],
    "adaptive_instance_norm": [ONE_CHANNEL, ONE_CHANNEL],
    "instance_batch_norm": [ONE_CHANNEL, lambda b, c, t, p: c == 2],
    "batch_norm": [CHANNEL_1, itself, CHANNEL_1],
    "domain_norm": [SAME_DOMAIN, ONE_CHANNEL, SAME_DOMAIN],
    "group_norm": [GROUP, GROUP],
    "layer_norm": [
        both(INSTANCE_1, lambda b, c, t, p: (t == T) & (p == P)),
        lambda b, c, t, p: t == drawn.ROW,
    ],
    "divisive_norm": [NEAR, NEAR_ROW, NEAR_GROUP, ONE_CHANNEL],
    "retinex_norm": [ONE_CHANNEL, SAME_FRAME, ONE_CHANNEL],
}


def near_rows():
    """Return which rows are voxels of the chosen one's instance that two windows lead to."""
    place = torch.tensor(drawn.PLACE_OF_ROW)
    mine = INDEX[drawn.ROW] == INDEX
    window = (((place[:, None] - place[None]).abs() <= 1) & mine[:, None] & mine[None]).long()
    return (window @ window)[drawn.ROW] > 0


def by_law(law, panel):
    """Return what a law says about the elements of a panel; a row counts as a frame there."""
    if panel.cells.ndim == 2:
        row, channel = torch.meshgrid(*map(torch.arange, panel.cells.shape), indexing="ij")
        return law(INDEX[row], channel, row, torch.zeros_like(row)).expand(panel.cells.shape)
    places = torch.meshgrid(*map(torch.arange, panel.cells.shape), indexing="ij")
    return law(*places)


@pytest.fixture(scope="module")
def panels():
    return {name: make() for name, make in drawn.FIGURES.items()}


@pytest.mark.parametrize("name", drawn.FIGURES)
def test_what_an_output_depends_on_is_what_the_norm_is_said_to_normalize_over(panels, name):
    assert len(panels[name]) == len(LAWS[name])
    for panel, law in zip(panels[name], LAWS[name], strict=True):
        assert torch.equal(panel.cells, by_law(law, panel)), panel.title


def test_no_law_holds_for_a_norm_of_another_kind(panels):
    layer, batch = panels["layer_norm"], panels["batch_norm"]
    for law in (ONE_CHANNEL, SAME_FRAME, GROUP, CHANNEL_1):
        assert not torch.equal(layer[0].cells, by_law(law, layer[0]))
    for law in (ONE_CHANNEL, GROUP, itself):
        assert not torch.equal(batch[0].cells, by_law(law, batch[0]))


class TorchOnAMatrix(torch.nn.Module):
    """Torch's instance norm on a matrix, which some libraries use for sparse tensors."""

    def forward(self, rows):
        # To torch a matrix is one instance whose channels are the rows.
        features = rows.features
        return rows.replace(torch.nn.InstanceNorm1d(len(features))(features))


def test_an_instance_norm_that_reads_rows_as_channels_is_found():
    panel = drawn.rows("torch's on a matrix", TorchOnAMatrix())
    assert not torch.equal(panel.cells, by_law(ONE_CHANNEL, panel))
    assert torch.equal(panel.cells, by_law(LAWS["layer_norm"][1], panel))


def test_every_norm_has_a_figure(panels):
    shown = " ".join(panel.title for several in panels.values() for panel in several)
    # These are named by their pages; a sync batch norm of one process is the batch norm.
    elsewhere = {"AdaptiveInstanceNorm", "InstanceBatchNorm", "SyncBatchNorm"}
    names = {name for name in geonorm.__all__ if name.endswith("Norm")}
    assert all(name in shown for name in names - elsewhere)


@pytest.mark.parametrize("name", drawn.FIGURES)
def test_the_drawing_in_the_documentation_is_the_one_drawn_now(name):
    kept = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert kept == draw_norms.figure(name), "run tools/draw_norms.py"


def test_no_other_drawing_is_kept():
    assert {path.stem for path in FOLDER.iterdir()} == set(drawn.FIGURES)


def test_another_norm_makes_another_drawing():
    one, other = (drawn.dense("a norm", norm) for norm in
                  (geonorm.InstanceNorm(4), geonorm.BatchNorm(4)))
    assert draw("a norm", [one]) != draw("a norm", [other])


def shown(axes, panel):
    """Return the colour at the middle of each cell of a drawn panel, in the shape of its cells."""
    pixels = torch.as_tensor(axes.images[0].get_array())
    if panel.cells.ndim == 2:
        return pixels[6::13, 17::34]
    instances, channels, rows, columns = panel.cells.shape
    return torch.stack([
        torch.stack([pixels[8 * (b * (rows + 1)) + 4 :: 8, 8 * (c * (columns + 1)) + 4 :: 8]
                     [:rows, :columns] for c in range(channels)])
        for b in range(instances)
    ])  # fmt: skip


@pytest.mark.parametrize("name", drawn.FIGURES)
def test_each_cell_has_the_colour_of_what_the_gradient_says(panels, name):
    figure = layout(panels[name])
    assert [axes.get_title() for axes in figure.axes] == [panel.title for panel in panels[name]]
    for axes, panel in zip(figure.axes, panels[name], strict=True):
        expected = torch.where(panel.cells, DEPENDENT, OTHER)
        if panel.chosen is not None:
            expected[panel.chosen] = CHOSEN
        assert torch.equal(shown(axes, panel), expected), panel.title
        labels = [label.get_text().replace("\n", ", ") for label in axes.get_yticklabels()]
        assert labels == [*panel.labels]
    legend = {text.get_text(): patch.get_facecolor() for text, patch in
              zip(figure.legends[0].get_texts(), figure.legends[0].get_patches(), strict=True)}
    blue = legend["input it depends on, itself included"]
    assert matplotlib.colors.to_hex(blue) == COLOURS[DEPENDENT] == "#2b6cb0"


def test_panels_lie_within_the_figure_and_beside_each_other(panels):
    for name, several in panels.items():
        figure = layout(several)
        figure.draw_without_rendering()
        boxes = [part.get_tightbbox() for part in (*figure.axes, *figure.legends)]
        for number, box in enumerate(boxes):
            assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, (name, number)
            assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, (name, number)
            for other in boxes[:number]:
                apart = (box.x1 <= other.x0 or other.x1 <= box.x0
                         or box.y1 <= other.y0 or other.y1 <= box.y0)  # fmt: skip
                assert apart, (name, number)


def test_the_command_writes_every_drawing(tmp_path, capsys):
    draw_norms.main([str(tmp_path / "new")])
    assert {path.stem for path in (tmp_path / "new").iterdir()} == set(drawn.FIGURES)
    assert capsys.readouterr().out.count(".svg") == len(drawn.FIGURES)
