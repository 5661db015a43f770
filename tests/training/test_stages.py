"""What a stage opens: each dataset once, no more than it needs, all of the same classes."""

from types import SimpleNamespace

import pytest

from geonorm.datasets import VideoSet
from geonorm.training.action.data import ClipData
from geonorm.training.stages import open_datasets

TABLE = {"train": ("road", "car"), "val": ("road", "car"), "test": ("road", "tree")}


def opened(stage, given=()):
    """Return what is open after a stage, and what was opened in order."""
    order, datasets = [], {name: SimpleNamespace(classes=TABLE[name]) for name in given}

    def open_one(name):
        order.append(name)
        return SimpleNamespace(classes=TABLE[name])

    open_datasets(stage, datasets, open_one)
    return datasets, order


@pytest.mark.parametrize(
    ("stage", "given", "order"),
    [("fit", (), ["train", "val"]), ("fit", ("train",), ["val"]), ("validate", (), ["val"]),
     ("test", (), ["test"]), ("predict", (), [])],
)  # fmt: skip
def test_what_is_needed_is_opened_once(stage, given, order):
    datasets, found = opened(stage, given)
    assert found == order
    assert datasets.keys() == {*given, *order}


def test_classes_must_be_the_same_in_this_order():
    with pytest.raises(ValueError, match=r"the same classes; got road, car and road, tree"):
        opened("test", ("train",))
    with pytest.raises(ValueError, match=r"the same classes; got road, car and road, tree"):
        opened("test", ("train", "val"))


def test_videos_to_train_on_are_given_and_have_labels(tmp_path):
    films = VideoSet([(tmp_path / "a.mp4", 0), (tmp_path / "b.mp4", -1)], ("wave",))
    data = ClipData(lambda: films, lambda: films)
    assert data.videos("val") is films
    with pytest.raises(ValueError, match="to train on must all have labels; some have none"):
        data.videos("train")
    with pytest.raises(ValueError, match=r"no videos to val; give --data\.val or a --config"):
        ClipData(lambda: films, None).videos("val")
