"""Numbers and colours of classes stay: predictions and pictures of two versions are compared."""

import hashlib

import numpy as np
import pytest

from geonorm import datasets

# The first digits of SHA-256 over a row (number in the files, red, green, blue) for each class.
# Whoever changes one on purpose writes it here and names the change in CHANGELOG.md.
TABLES = {
    "NuScenes": "ca175aab7aa0",
    "NuScenesC": "ca175aab7aa0",
    "S3DIS": "0c53881afd89",
    "ScanNet": "4b3eadf195b8",
    "ScanNet200": "1d2d7ee35bee",
    "SemanticKITTI": "5ca196a20372",
    "SemanticKITTIC": "5ca196a20372",
    "SemanticPOSS": "22e81a256efe",
    "SemanticSTF": "bd384749e813",
    "SynLiDAR": "04e5e6570209",
    "SyntheticStreets": "87400588f542",
    "Waymo": "5639d4ab587a",
}  # fmt: skip
# The same over the names, a line for each class.
NAMES = {
    "NuScenes": "73724c86fb43",
    "NuScenesC": "73724c86fb43",
    "S3DIS": "686c1cc0597e",
    "ScanNet": "33da8c5ed701",
    "ScanNet200": "52f5560df1b1",
    "SemanticKITTI": "9d46fe7eb2bd",
    "SemanticKITTIC": "9d46fe7eb2bd",
    "SemanticPOSS": "13b177cc097a",
    "SemanticSTF": "9d46fe7eb2bd",
    "SynLiDAR": "9d86472a4777",
    "SyntheticStreets": "7277f18c390a",
    "Waymo": "e35641181992",
}  # fmt: skip


def table(name: str) -> np.ndarray:
    dataset = getattr(datasets, name)
    ids = getattr(dataset, "raw_ids", range(len(dataset.classes)))
    return np.column_stack([ids, dataset.colors]).astype("<i8")


@pytest.mark.parametrize("name", TABLES)
def test_numbers_and_colours_of_classes(name: str) -> None:
    rows = table(name)
    assert rows.shape == (len(getattr(datasets, name).classes), 4)
    assert hashlib.sha256(rows.tobytes()).hexdigest()[:12] == TABLES[name]


@pytest.mark.parametrize("name", TABLES)
def test_names_of_classes(name: str) -> None:
    """They are the keys of files of scores, and what checkpoints are compared by."""
    named = "\n".join(getattr(datasets, name).classes)
    assert hashlib.sha256(named.encode()).hexdigest()[:12] == NAMES[name]


def test_no_table_is_left_out() -> None:
    assert NAMES.keys() == TABLES.keys()
    public = {name: getattr(datasets, name) for name in datasets.__all__}
    held = [name for name, each in public.items()
            if isinstance(getattr(each, "colors", None), np.ndarray)]  # fmt: skip
    assert {*held} == TABLES.keys()
