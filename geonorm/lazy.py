"""Names of a package that are imported on first use."""

from collections.abc import Callable, Mapping
from importlib import import_module


def lazily(
    package: str, exports: Mapping[str, tuple[str, ...]]
) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """Return `__all__`, `__getattr__` and `__dir__` of a package.

    Args:
        package: its name.
        exports: the names that each of its modules has to offer.
    """
    home = {name: module for module, names in exports.items() for name in names}
    public = sorted(home)

    def get(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {public}")
        return getattr(import_module(f"{package}.{home[name]}"), name)

    def directory() -> list[str]:
        return sorted({*vars(import_module(package)), *public})

    return public, get, directory
