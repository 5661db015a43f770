"""Open the datasets that a stage of training needs."""

from collections.abc import Callable
from typing import Any

from geonorm.datasets.label_map import in_words

NEEDED = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}


def open_datasets(stage: str, datasets: dict[str, Any], open_one: Callable[[str], Any]) -> None:
    """Open what a stage needs and is not open yet; all must have the same classes.

    Args:
        stage: "fit", "validate" or "test".
        datasets: what is open, by "train", "val" and "test"; is filled.
        open_one: opens one of these.

    Raises:
        ValueError: the classes of two datasets differ.
    """
    for name in NEEDED.get(stage, ()):
        if name not in datasets:
            datasets[name] = open_one(name)
    each = [dataset.classes for dataset in datasets.values()]
    for classes in each[1:]:
        if classes != each[0]:
            raise ValueError(
                "training and validation data must have the same classes; got "
                f"{in_words(each[0])} and {in_words(classes)}"
            )
