"""Tables and pictures of a report, as HTML."""

from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geonorm.looking.page import address

_WIDTHS = (1100, 800, 560, 400)  # pixels, of which the first that fits is taken
_QUALITY = 72  # percent, of WebP


def words(value: Any) -> str:
    """Return a value as text: numbers to four digits, None as a hyphen."""
    if value is None:
        return "-"
    if isinstance(value, float):
        if not np.isfinite(value):
            return "-"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table; numbers stand to the right."""
    lines = [
        "".join(
            f'<td class="number">{words(cell)}</td>'
            if isinstance(cell, int | float) and not isinstance(cell, bool)
            else f"<td>{escape(words(cell))}</td>"
            for cell in row
        )
        for row in rows
    ]
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><tr>{names}</tr>\n{body}</table></div>'


def pictures(shown: Sequence[tuple[str, Path]], room: int) -> str:
    """Return pictures with their titles, made so small that they fit.

    Args:
        shown: title and file of each.
        room: bytes for all of them.
    """
    parts = []
    for title, path in shown:
        data = _fitted(path, room // len(shown))
        told = escape(title)
        if data is None:
            parts.append(f"<figure><figcaption>{told}: {escape(str(path))}</figcaption></figure>")
            continue
        source = address(data, "webp")
        parts.append(
            f'<figure><img src="{source}" alt="{told}"><figcaption>{told}</figcaption></figure>'
        )
    return f'<div class="pictures">{"".join(parts)}</div>'


def _fitted(path: Path, room: int) -> bytes | None:
    """Return a picture as WebP of so many bytes in base64 at most, None where none is so small."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    for width in _WIDTHS:
        small = image.copy()
        small.thumbnail((width, 4 * width))
        file = BytesIO()
        small.save(file, "webp", quality=_QUALITY)
        if file.tell() * 4 <= room * 3:
            return file.getvalue()
    return None
