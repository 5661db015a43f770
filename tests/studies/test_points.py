"""Densities, weights and the study of points: what is exact, and verdicts under its variants."""

from pathlib import Path

import MinkowskiEngine as ME
import numpy as np
import pytest
import torch

from geonorm import InstanceNorm
from geonorm.datasets import Scan, SyntheticStreets
from geonorm.studies import density, points
from geonorm.studies.study import Setting, Variant
from helpers.studies import NOTHING, run_apart


@pytest.fixture(scope="module")
def street() -> Scan:
    return SyntheticStreets(1, seed=5)[0]


def setting(variant: Variant = "claimed") -> Setting:
    torch.manual_seed(0)
    return Setting(0, variant, NOTHING)


def test_rings_are_the_beams_of_the_sensor(street: Scan) -> None:
    """A sensor of 32 evenly spaced beams from -20 to 6 degrees; its noise is along the ray."""
    rise = np.degrees(np.arcsin(street.points[:, 2] / density.ranges(street)))
    beams = (rise + 20) / 26 * 31
    assert np.abs(beams - beams.round()).max() < 1e-3
    seen = {beam: number for number, beam in enumerate(sorted({*beams.round()}))}
    np.testing.assert_array_equal(density.rings(street), [seen[beam] for beam in beams.round()])


def test_thinnings_keep_what_they_say(street: Scan) -> None:
    rng = np.random.default_rng(0)
    kept = {name: thin(street, rng) for name, thin in density.THINNINGS.items()}
    assert kept["random half"].sum() == round(0.5 * len(street))
    assert kept["random hundredth"].sum() == round(0.01 * len(street))
    rings = density.rings(street)
    assert len({*rings[kept["every 4th beam"]] % 4}) == 1
    assert kept["every 2nd beam"].sum() == pytest.approx(len(street) / 2, rel=0.2)
    ranges = density.ranges(street)
    assert kept["thinned by range"][ranges >= 20].all()
    band = (ranges > 9) & (ranges < 11)
    assert kept["thinned by range"][band].mean() == pytest.approx(0.25, abs=0.04)
    assert ranges[kept["nearer half alone"]].max() <= np.median(ranges)


def test_an_uneven_quarter_favours_the_far_with_a_rising_power(street: Scan) -> None:
    rng, ranges = np.random.default_rng(0), density.ranges(street)
    means = []
    for power in (-2.0, 0.0, 2.0):
        kept = density.uneven_quarter(street, power, rng)
        assert kept.sum() == len(street) // 4
        means.append(ranges[kept].mean())
    assert means[1] == pytest.approx(ranges.mean(), rel=0.05)
    assert means[0] < 0.8 * means[1] < 0.8 * means[2] * 0.9


def test_neighbours_are_counted_by_hand() -> None:
    places = np.array([[0, 0, 0], [0.3, 0, 0], [0.9, 0, 0], [9, 9, 9]], dtype=np.float32)
    weights = density.neighbour_weights(places, 0.7)
    torch.testing.assert_close(weights, torch.tensor([1 / 2, 1 / 3, 1 / 2, 1.0]))


def test_neighbour_norm_weighs_the_voxels_of_each_scan_by_itself() -> None:
    """Two scans at the same places are no neighbours of one another."""
    cells = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [0, 9, 0, 0], [1, 0, 0, 0], [1, 9, 9, 9]])
    x = ME.SparseTensor(torch.randn(5, 3), cells.int())
    out = density.NeighbourInstanceNorm(3, voxel_size=0.5, radius=0.6)(x)
    weights = torch.tensor([0.5, 0.5, 1, 1, 1])
    expected = InstanceNorm(3)(x.F, cells[:, 0], point_weights=weights)
    torch.testing.assert_close(out.F, expected)


def test_voxels_are_matched_by_their_places(street: Scan) -> None:
    rng = np.random.default_rng(0)
    half = street.take(rng.permutation(len(street))[: len(street) // 2])
    whole, thinned = density.Voxels([street, street], 0.2), density.Voxels([half, street], 0.2)
    mine, theirs = whole.common(thinned)
    assert len(theirs) == len(thinned.places)  # a subset has no voxel of its own
    assert (whole.batch.coordinates[mine] == thinned.batch.coordinates[theirs]).all()


def test_duplication_is_exact_and_batch_norm_sees_it() -> None:
    plain = points.duplication(points.IN, setting())
    assert max(plain["twice"], plain["7 times"], plain["7 times, the other scans"]) < 1e-6
    assert plain["1 to 7 times at random"] > 1e-3
    assert points.duplication("1/multiplicity", setting())["1 to 7 times at random"] < 1e-6
    control = points.duplication(points.BN, setting())
    assert min(control["7 times"], control["7 times, the other scans"]) > 0.01
    assert {*points.duplication("batch norm, evaluation", setting()).values()} == {0.0}


def test_mutation_strikes_the_nearer_half() -> None:
    assert points.duplication(points.IN, setting("mutated"))["7 times"] > 0.1
    assert points.thinning(points.IN, setting("mutated"))["random tenth"] > 0.1


def test_voxels_merge_duplicates_under_any_norm() -> None:
    for column in (points.IN, points.BN):
        assert points.voxels(column, setting())["7 times"] < 1e-5


def test_change_is_what_the_moments_predict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "DRAWS", 2000)
    values = points.closed_form("random half", setting())
    assert values["ratio"] == pytest.approx(1, abs=0.03)
    assert 0.01 < values["predicted"] < 0.1


@pytest.mark.slow
def test_what_is_left_out_of_a_quick_run_is_said(tmp_path: Path) -> None:
    outcome = run_apart(points.STUDY, 1, tmp_path, quick=True)
    assert outcome.left_out == {
        "trained": "too short to judge", "real scan": "needs a scan: give --data"
    }  # fmt: skip
    passed = [each.passed for each in outcome.judge()]
    assert passed == [True, False, True, True, True, True, True, True, True, False, True, True,
                      False, None, None, None]  # fmt: skip
    assert {1, 7, 8} <= {*outcome.turned("mutated")}
    assert {1, 5, 6} <= {*outcome.turned("broken")}
    refuted = outcome.verdict()
    assert refuted.startswith("holds in part")
    assert "robust to a density that depends on the range" in refuted


@pytest.mark.filterwarnings("default")  # Lightning warns about matters of its own
@pytest.mark.long
def test_trained_networks_lose_to_thinning() -> None:
    outcome = {column: points.trained(column, setting()) for column in (points.IN, points.FAR)}
    for values in outcome.values():
        assert values["mIoU"] > 0.35
        assert values["lost: random tenth"] > 0.08
    lost = "lost: thinned by range"
    assert outcome[points.FAR][lost] < outcome[points.IN][lost]
