"""The names of geonorm.datasets: those that type checkers are told are those that are imported."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

import geonorm.datasets


def names_for_type_checkers():
    """Return the module of each name that is imported under TYPE_CHECKING."""
    tree = ast.parse(Path(geonorm.datasets.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    return {line.names[0].asname: line.module for line in block.body}


def test_type_checkers_know_every_name():
    assert sorted(names_for_type_checkers()) == geonorm.datasets.__all__


@pytest.mark.parametrize("name", geonorm.datasets.__all__)
def test_a_name_is_what_its_module_defines(name):
    if name == "collate_scans":
        pytest.importorskip("MinkowskiEngine")
    found = getattr(import_module(names_for_type_checkers()[name]), name)
    assert getattr(geonorm.datasets, name) is found
    assert found.__module__ == names_for_type_checkers()[name]


def test_an_unknown_name():
    with pytest.raises(AttributeError, match=r"'Kitti'; it has \['AppearanceShift', 'AudioFold"):
        geonorm.datasets.Kitti  # noqa: B018
