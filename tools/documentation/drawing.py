"""The figures of the norms as SVG: small, readable as text, and the same on every machine."""

from collections.abc import Iterator
from html import escape

from documentation.dependence import Panel

WIDTH, MARGIN, GAP = 740, 14, 24
CELL = 8  # an element of a dense tensor
BLOCK_GAP = 8
ROW_CELL, ROW_HEIGHT = 34, 13
HEAD = 40  # of a panel: its title and the numbers of its channels
LETTER = 5.6  # width of a letter of the labels, at the most
DEPENDENT, OTHER, CHOSEN, INK, FAINT = "#2b6cb0", "#e3e8ef", "#f59e0b", "#1f2933", "#52606d"
LEGEND = ((CHOSEN, "an output element"), (DEPENDENT, "input it depends on, itself included"),
          (OTHER, "input it does not depend on"))  # fmt: skip


def draw(title: str, panels: list[Panel]) -> str:
    """Return a figure of panels, as many beside each other as its width allows."""
    body: list[str] = []
    x, y, tallest = MARGIN, MARGIN, 0
    for panel in panels:
        width, height = size(panel)
        if x > MARGIN and x + width > WIDTH - MARGIN:
            x, y, tallest = MARGIN, y + tallest + GAP, 0
        body += [f'<g transform="translate({x} {y})">', *_panel(panel), "</g>"]
        x, tallest = x + width + GAP, max(tallest, height)
    y += tallest + GAP
    notes = [*dict.fromkeys(panel.axes for panel in panels if panel.axes)]
    body += _legend(y, notes)
    height = y + 10 + 16 * len(notes) + MARGIN
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="Helvetica, Arial, sans-serif">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
        *body, "</svg>", "",
    ])  # fmt: skip


def size(panel: Panel) -> tuple[int, int]:
    """Return width and height of a panel."""
    margin = _label_width(panel)
    if panel.cells.ndim == 2:
        height, width = panel.cells.shape
        return margin + width * ROW_CELL, HEAD + height * ROW_HEIGHT
    instances, channels, height, width = panel.cells.shape
    return (margin + channels * (width * CELL + BLOCK_GAP) - BLOCK_GAP,
            HEAD + instances * (height * CELL + BLOCK_GAP) - BLOCK_GAP)  # fmt: skip


def _label_width(panel: Panel) -> int:
    lines = [line for label in panel.labels for line in _lines(panel, label)]
    return round(max(map(len, lines)) * LETTER) + 6


def _lines(panel: Panel, label: str) -> list[str]:
    """Return a label as lines: a block of a dense tensor has room for two, a row for one."""
    return label.split(", ") if panel.cells.ndim == 4 else [label]


def _panel(panel: Panel) -> Iterator[str]:
    """Yield what a panel consists of, from its upper left corner at (0, 0)."""
    margin, dense = _label_width(panel), panel.cells.ndim == 4
    yield _text(0, 12, panel.title, 12, INK, bold=True)
    step = panel.cells.shape[3] * CELL + BLOCK_GAP if dense else ROW_CELL
    inner = step - BLOCK_GAP if dense else step
    for channel in range(panel.cells.shape[1]):
        yield _text(margin + channel * step + inner / 2, 32, f"channel {channel}" if dense
                    else f"ch. {channel}", 10, FAINT, anchor="middle")  # fmt: skip
    down = panel.cells.shape[2] * CELL + BLOCK_GAP if dense else ROW_HEIGHT
    for number, label in enumerate(panel.labels):
        lines = _lines(panel, label)
        middle = HEAD + number * down + (down - BLOCK_GAP * dense) / 2 + 3.5
        for line, words in enumerate(lines):
            yield _text(0, middle + 12 * (line - (len(lines) - 1) / 2), words, 10, FAINT)
    yield from _cells(panel, margin, step, down)


def _cells(panel: Panel, margin: int, step: int, down: int) -> Iterator[str]:
    """Yield the elements, those of one colour in one path; the output element comes last."""
    boxes: dict[str, list[str]] = {OTHER: [], DEPENDENT: [], CHOSEN: []}
    for place in (tuple(index) for index in (panel.cells >= 0).nonzero().tolist()):
        instance, channel, *within = place
        x, y = margin + channel * step, HEAD + instance * down
        width, height = ROW_CELL, ROW_HEIGHT
        if within:
            x, y, width, height = x + within[1] * CELL, y + within[0] * CELL, CELL, CELL
        colour = DEPENDENT if panel.cells[place] else OTHER
        colour = CHOSEN if place == panel.chosen else colour
        boxes[colour].append(f"M{x} {y}h{width - 1}v{height - 1}h{1 - width}z")
    for colour, paths in boxes.items():
        if paths:
            yield f'<path fill="{colour}" d="{"".join(paths)}"/>'


def _legend(y: int, notes: list[str]) -> Iterator[str]:
    x = MARGIN
    for colour, words in LEGEND:
        yield f'<rect x="{x}" y="{y}" width="10" height="10" fill="{colour}"/>'
        yield _text(x + 15, y + 9, words, 10, FAINT)
        x += 15 + round(len(words) * LETTER * 0.82) + 18
    for number, words in enumerate(notes, 1):
        yield _text(MARGIN, y + 9 + 16 * number, words, 10, FAINT)


def _text(
    x: float, y: float, words: str, points: int, colour: str, *, bold: bool = False,
    anchor: str = "start",
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    middle = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return (f'<text x="{x:g}" y="{y:g}" font-size="{points}" fill="{colour}"{weight}{middle}>'
            f"{escape(words)}</text>")  # fmt: skip
