"""Published maps that give several datasets the same classes, read from `label_maps/`."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from geonorm.datasets.label_ids import ClassRow, Color, LabelIds
from geonorm.names import choices

_FOLDER = Path(__file__).with_name("label_maps")


@dataclass(frozen=True)
class LabelMap:
    """Classes that several datasets share, and the ids that stand for them in each.

    Attributes:
        title: what it is called.
        source: the publication that it is from.
        classes: colour (RGB, 0 to 255) of each class by its name, in the order of the train ids.
        ids: by dataset, the ids of each class, for nuScenes the names of its categories; no ids
            where a dataset lacks the class.
    """

    title: str
    source: str
    classes: Mapping[str, Color]
    ids: Mapping[str, Mapping[str, Sequence[int | str]]]

    def rows(self, dataset: str) -> list[ClassRow]:
        """Return name, colour and ids of each class in a dataset."""
        ids = self.ids[dataset]
        return [(name, color, tuple(ids[name])) for name, color in self.classes.items()]


@cache
def label_maps() -> dict[str, LabelMap]:
    """Return the known maps by the name under which one is chosen, such as `dglss`.

    Example:
        >>> list(label_maps())
        ['dglss', 'lidog', 'semantickitti']
    """
    found = {}
    for file in sorted(_FOLDER.glob("*.toml")):
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        content["classes"] = {name: tuple(rgb) for name, rgb in content["classes"].items()}
        found[file.stem] = LabelMap(**content)
    return found


def maps_of(dataset: str) -> tuple[str, ...]:
    """Return the names of the maps that a dataset has.

    Example:
        >>> maps_of("SemanticPOSS")
        ('dglss',)
    """
    return tuple(name for name, each in label_maps().items() if dataset in each.ids)


def shared_classes(name: str, dataset: str) -> list[ClassRow]:
    """Return name, colour and ids in a dataset of each class of a map.

    Args:
        name: of the map.
        dataset: whose ids.

    Raises:
        ValueError: the dataset has no such map (naming those that it has).
    """
    if name not in maps_of(dataset):
        known = maps_of(dataset)
        raise ValueError(
            f"{dataset} has no label map {name!r}; "
            + (choices(name, known) if known else "it has none")
        )
    return label_maps()[name].rows(dataset)


def mapped(ids: LabelIds, name: str | None) -> LabelIds:
    """Return the ids of a dataset under the classes of a map; all others that it has are ignored.

    Args:
        ids: of the dataset under its own classes.
        name: of the map; None for the dataset's own classes.

    Raises:
        ValueError: the dataset has no such map (naming those that it has).

    Example:
        >>> from geonorm.datasets.semantickitti import SemanticKITTI
        >>> mapped(SemanticKITTI.ids, "lidog").names[:3]
        ('vehicle', 'person', 'road')
    """
    if name is None:
        return ids
    return LabelIds(ids.dataset, shared_classes(name, ids.dataset), ids.known)


def in_words(classes: Sequence[str]) -> str:
    """Return names of classes in words, and whose they are where a map has just these.

    Example:
        >>> in_words(["road", "car"])
        'road, car'
    """
    titles = [each.title for each in label_maps().values() if [*each.classes] == [*classes]]
    return (f"{titles[0]}'s " if titles else "") + ", ".join(classes)
