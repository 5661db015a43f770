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


def table(name: str) -> np.ndarray:
    dataset = getattr(datasets, name)
    ids = getattr(dataset, "raw_ids", range(len(dataset.classes)))
    return np.column_stack([ids, dataset.colors]).astype("<i8")


@pytest.mark.parametrize("name", TABLES)
def test_numbers_and_colours_of_classes(name: str) -> None:
    rows = table(name)
    assert rows.shape == (len(getattr(datasets, name).classes), 4)
    assert hashlib.sha256(rows.tobytes()).hexdigest()[:12] == TABLES[name]


def test_no_table_is_left_out() -> None:
    public = {name: getattr(datasets, name) for name in datasets.__all__}
    held = [name for name, each in public.items()
            if isinstance(getattr(each, "colors", None), np.ndarray)]  # fmt: skip
    assert {*held} == TABLES.keys()
