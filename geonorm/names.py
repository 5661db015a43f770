"""Compose the part of a message that lists known names and suggests the nearest."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(wrong: object, known: Iterable[str]) -> str:
    """Return which of the known names was probably meant, as a sentence, or nothing.

    >>> did_you_mean("bach", ["none", "batch"])
    " Did you mean 'batch'?"
    """
    near = get_close_matches(str(wrong), sorted(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def choices(wrong: object, known: Iterable[str]) -> str:
    """Return the known names in order and, where one is near, which was probably meant.

    >>> choices("bach", ["none", "batch"])
    "choose from ['batch', 'none']. Did you mean 'batch'?"
    """
    known = sorted(known)
    meant = did_you_mean(wrong, known)
    return f"choose from {known}" + (f".{meant}" if meant else "")
