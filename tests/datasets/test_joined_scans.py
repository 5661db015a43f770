"""Several data sets in one: balanced epochs, a domain for each scan, and what is refused."""

from collections import Counter

import numpy as np
import pytest
from torch.utils.data import DataLoader

from geonorm.datasets import Augmented, JoinedScans, Mix3D, Scan, collate_scans


class Numbered:
    """Scans of one point, labelled by their place, the name saying set, epoch and place."""

    classes, ignore_index = ("road", "car"), 255
    colors = np.array([(1, 2, 3), (4, 5, 6)], np.uint8)

    def __init__(self, name, number):
        self.name, self.number, self.epoch = name, number, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        point = np.float32([[index, self.number, 0]])
        return Scan(point, None, np.array([index % 2]), f"{self.name}{index} of {self.epoch}")


def names(joined):
    return [joined[i].name.split(" ")[0] for i in range(len(joined))]


def test_without_weights_every_scan_comes_once_in_order():
    joined = JoinedScans([Numbered("a", 3), Numbered("b", 2)])
    assert names(joined) == ["a0", "a1", "a2", "b0", "b1"]
    assert [joined[i].domain for i in range(5)] == [0, 0, 0, 1, 1]
    assert joined.classes == ("road", "car")
    assert joined.num_domains == 2
    joined.set_epoch(4)
    assert joined[3].name == "b0 of 4"


def test_weights_balance_data_sets_of_any_size():
    joined = JoinedScans([Numbered("a", 100), Numbered("b", 7)], weights=[1, 3], length=40)
    assert len(joined) == 40
    assert Counter(name[0] for name in names(joined)) == {"a": 10, "b": 30}
    seen = Counter()
    for epoch in range(14):
        joined.set_epoch(epoch)
        seen.update(names(joined))
    # 420 turns of 7 scans are 60 each; 140 turns of 100 are once or twice each.
    assert {seen[f"b{i}"] for i in range(7)} == {60}
    assert {seen[f"a{i}"] for i in range(100)} == {1, 2}
    assert sum(seen[f"a{i}"] for i in range(100)) == 140


def test_an_epoch_is_a_function_of_its_number_and_the_seed():
    def epoch(number, seed=0):
        joined = JoinedScans([Numbered("a", 9), Numbered("b", 9)], weights=[1, 1], seed=seed)
        joined.set_epoch(number)
        return names(joined)

    assert epoch(3) == epoch(3)
    assert len({tuple(epoch(n, seed)) for n in range(4) for seed in range(3)}) == 12
    assert [name[1] for name in epoch(0)[:9]] != [name[1] for name in epoch(0)[9:]]


@pytest.mark.parametrize(("weights", "total", "expected"), [
    ([1, 1, 1], 10, [3, 4, 3]), ([0.5, 0.25, 0.25], 100, [50, 25, 25]), ([5, 1, 1], 9, [6, 2, 1]),
])  # fmt: skip
def test_shares_add_up(weights, total, expected):
    sets = [Numbered(name, 5) for name in "abc"]
    joined = JoinedScans(sets, weights=weights, length=total)
    assert joined.counts == expected
    pairs = zip(expected, weights, strict=True)
    assert all(abs(count - total * weight / sum(weights)) < 1 for count, weight in pairs)
    assert len(JoinedScans(sets, weights=[1, 2, 3])) == 15


def test_data_sets_can_share_a_domain_and_batches_carry_it():
    sets = [Numbered("a", 2), Numbered("b", 2), Numbered("c", 2)]
    joined = JoinedScans(sets, domains=[1, 0, 1])
    assert joined.num_domains == 2
    scans = [joined[i] for i in (4, 2, 0)]
    assert collate_scans(scans, 0.5, features={"position": 1.0}).domains == [1, 0, 1]
    assert collate_scans([sets[0][0]], 0.5, features={"position": 1.0}).domains == [None]
    assert scans[0].take(np.array([0])).domain == 1
    assert JoinedScans(sets[:1], domains=[3]).num_domains == 4


def test_a_mix_takes_its_partner_from_the_same_data_set():
    joined = JoinedScans([Numbered("a", 3), Numbered("b", 3)], weights=[1, 2], length=9)
    mixed = Augmented(joined, [Mix3D(center=False, probability=1)])
    assert mixed.num_domains == 2
    partners = Counter()
    for epoch in range(20):
        mixed.set_epoch(epoch)
        for index in range(9):
            scan = mixed[index]
            own, partner = (name[0] for name in scan.name.split(" + "))
            assert own == partner == "ab"[scan.domain]
            partners[scan.name] += 1
    assert len(partners) > 60
    one, other = Numbered("a", 1)[0], JoinedScans([Numbered("b", 1)])[0]
    with pytest.raises(ValueError, match="must be of one domain; a0 of 0 is of None, b0 of 0 of 0"):
        Mix3D(probability=1)(one, other, np.random.default_rng(0))


def test_workers_see_the_epoch():
    joined = JoinedScans([Numbered("a", 50), Numbered("b", 50)], weights=[1, 1], length=10)
    loader = DataLoader(joined, batch_size=None, num_workers=1, persistent_workers=True)
    first = [scan.name.split(" ")[0] for scan in loader]
    joined.set_epoch(1)
    second = [scan.name.split(" ")[0] for scan in loader]
    assert first != second
    assert second == names(joined)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"datasets": []}, "at least one data set; got none"),
        ({"domains": [0]}, r"domains must be 2 ids from 0; got \[0\]"),
        ({"domains": [0, 1, 1]}, r"domains must be 2 ids from 0; got \[0, 1, 1\]"),
        ({"domains": [0, -1]}, r"domains must be 2 ids from 0; got \[0, -1\]"),
        ({"weights": [1]}, r"weights must be 2 positive numbers; got \[1\]"),
        ({"weights": [1, 1, 1]}, r"weights must be 2 positive numbers; got \[1, 1, 1\]"),
        ({"weights": [1, 0]}, r"weights must be 2 positive numbers; got \[1, 0\]"),
        ({"length": 4}, "without weights every scan comes once; leave length out"),
        ({"weights": [1, 99], "length": 10}, r"at least one scan; 10 scans in shares"),
        ({"seed": -1}, "seed must be >= 0; got -1"),
        ({"root": "data"}, "--data.root data is one: give each its own root"),
    ],
)
def test_what_cannot_be_joined(options, message):
    with pytest.raises(ValueError, match=message):
        JoinedScans(**({"datasets": [Numbered("a", 3), Numbered("b", 2)]} | options))


def test_other_classes_indices_and_epochs_are_refused():
    other = Numbered("b", 2)
    other.classes = ("car", "road")
    with pytest.raises(ValueError, match=r"same order; got road, car and car, road"):
        JoinedScans([Numbered("a", 2), other])
    joined = JoinedScans([Numbered("a", 2)])
    for index in (-1, 2):
        with pytest.raises(IndexError, match=rf"index must be in \[0, 2\); got {index}"):
            joined[index]
    with pytest.raises(ValueError, match="epoch must be >= 0; got -1"):
        joined.set_epoch(-1)


def test_a_joined_data_set_has_the_colours_and_the_ignored_label_of_the_first():
    joined = JoinedScans([Numbered("a", 3), Numbered("b", 2)])
    np.testing.assert_array_equal(joined.colors, [(1, 2, 3), (4, 5, 6)])
    assert joined.ignore_index == 255
    assert [joined.peers(index) for index in (2, 3)] == [range(3), range(3, 5)]
    sets = [Numbered("a", 9), Numbered("b", 9)]
    assert names(JoinedScans(sets, weights=[1, 1])) == names(
        JoinedScans(sets, weights=[1, 1], seed=0)
    )
