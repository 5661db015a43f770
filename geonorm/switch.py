"""Settings that hold at once, and that a `with` block takes back."""

from collections.abc import Callable


class Switch:
    """Returned by a function that changed a setting: leaving its `with` block changes it back.

    Args:
        restore: brings back what was before.
    """

    def __init__(self, restore: Callable[[], None]) -> None:
        self._restore = restore

    def __enter__(self) -> None:
        """Do nothing: the setting holds since the call."""

    def __exit__(self, *_: object) -> None:
        """Bring back what was before the call."""
        self._restore()
