"""What is said of a name that is unknown."""

from collections.abc import Iterable
from difflib import get_close_matches


def choices(wrong: object, known: Iterable[str]) -> str:
    """Return the known names in order and, where one is near, which was probably meant.

    >>> choices("bach", ["none", "batch"])
    "choose from ['batch', 'none']. Did you mean 'batch'?"
    """
    known = sorted(known)
    near = get_close_matches(str(wrong), known, n=1)
    return f"choose from {known}" + (f". Did you mean {near[0]!r}?" if near else "")
