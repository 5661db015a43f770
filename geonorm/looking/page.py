"""One HTML file that holds all it shows, and opens from a disk without a network."""

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geonorm.files import written_whole

_SHELL = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def resource(name: str) -> str:
    """Return the text of a file of this package."""
    return files("geonorm.looking").joinpath(name).read_text(encoding="utf-8")


def packed(array: np.ndarray) -> str:
    """Return the bytes of an array, little-endian and in base64."""
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    return base64.b64encode(little.tobytes()).decode("ascii")


def picture(pixels: np.ndarray, form: str, quality: int) -> str:
    """Return an image, uint8 (H, W, 3), as the address that a page shows it by.

    Args:
        pixels: red, green and blue.
        form: of the file, "jpeg" or "webp".
        quality: its quality in percent.
    """
    file = BytesIO()
    Image.fromarray(pixels).save(file, form, quality=quality)
    return address(file.getvalue(), form)


def address(data: bytes, form: str) -> str:
    """Return the file of an image as the address that a page shows it by."""
    return f"data:image/{form};base64,{base64.b64encode(data).decode('ascii')}"


def as_script(content: Any) -> str:
    """Return what JSON can hold as text that can stand within a script; NaN and inf are null."""
    return json.dumps(_finite(content), allow_nan=False).replace("<", "\\u003c")


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if np.isfinite(content) else None
    if isinstance(content, Mapping):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


def viewer(title: str, scripts: Sequence[str], content: Any) -> str:
    """Return a page whose scripts show a content.

    Args:
        title: of the page.
        scripts: files of this package.
        content: what JSON can hold; the scripts find it in the element `content`.
    """
    parts = [
        f'<script type="application/json" id="content">{as_script(content)}</script>',
        *(f"<script>\n{resource(script)}</script>" for script in scripts),
    ]
    return _SHELL.format(
        title=escape(title), style=resource("viewer.css"), body="\n".join(parts)
    )


def report(title: str, body: str) -> str:
    """Return a page of text, tables and figures, the body of which is HTML."""
    return _SHELL.format(title=escape(title), style=resource("report.css"), body=body)


def write(page: str, path: Path) -> None:
    """Write a page, complete or not at all, into a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as aside:
        aside.write_text(page, encoding="utf-8")
