"""Tables as HTML, for notebooks, and as Markdown."""

from collections.abc import Iterable, Sequence
from html import escape


def as_html(lines: Sequence[Sequence[str]], notes: Iterable[str] = ()) -> str:
    """Return lines of cells as an HTML table, the first its head, with notes below.

    What stands between two asterisks on each side is bold, as in Markdown.

    >>> print(as_html([["norm", "change"], ["a<b>", "**0.1**"]], ["by hand"]))
    <table><tr><th>norm</th><th>change</th></tr>
    <tr><td>a&lt;b&gt;</td><td><b>0.1</b></td></tr>
    </table>
    <p>by hand</p>
    """
    written = [_line(line, "td" if number else "th") for number, line in enumerate(lines)]
    return "\n".join([
        f"<table>{written[0]}", *written[1:], "</table>",
        *(f"<p>{escape(note)}</p>" for note in notes),
    ])  # fmt: skip


def as_markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as a table in Markdown, the first its head.

    >>> print(as_markdown([["norm", "change"], ["batch", "0.1"]]))
    | norm | change |
    | --- | --- |
    | batch | 0.1 |
    """
    head, *rest = lines
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rest))


def _line(cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{_cell(cell)}</{tag}>' for cell in cells)}</tr>"


def _cell(text: str) -> str:
    bold = text.startswith("**") and text.endswith("**") and len(text) > 4
    return f"<b>{escape(text[2:-2])}</b>" if bold else escape(text)
