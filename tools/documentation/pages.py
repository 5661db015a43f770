"""Pages whose Python runs from top to bottom, each piece with what it prints below it."""

import contextlib
import io
import re

PIECE = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)


def run_page(text: str, name: str) -> str:
    """Run the Python of a page in a namespace of its own; return the page with what it prints.

    A page is right if it comes back as it was.

    Args:
        text: Markdown, in which a block of Python may be followed by a block of text.
        name: the page's, for tracebacks.
    """
    namespace: dict[str, object] = {"__name__": name}

    def run(piece: re.Match[str]) -> str:
        lines_above = text.count("\n", 0, piece.start()) + 1
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile("\n" * lines_above + piece[1], name, "exec"), namespace)
        output = "".join(f"{line.rstrip()}\n" for line in printed.getvalue().splitlines())
        shown = f"\n```text\n{output}```\n" if output else ""
        return f"```python\n{piece[1]}```\n{shown}"

    return PIECE.sub(run, text)
