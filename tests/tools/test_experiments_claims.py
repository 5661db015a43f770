"""docs/which_norm.md: its statements are tests of the rows, and it says what the rows say."""

from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import get_args

import pytest

pytest.importorskip("lightning")
from grid import table, which
from grid.cells import BROKEN, EVERYWHERE, Cell, grid
from grid.claims import (
    ADVICE,
    CLAIMS,
    HOLDS,
    NOT_RUN,
    REFUTED,
    UNDECIDED,
    Advice,
    Claim,
    best,
    judge,
)
from grid.rows import Row, read
from grid.streets import OTHER_SENSORS, REAL
from grid.table import BASE

from geonorm.datasets import clip_corruptions, scan_corruptions
from geonorm.studies.outcome import Interval

DOCS = Path(__file__).resolve().parents[2] / "docs"
INSTANCE = ("instance", EVERYWHERE, "")
CLAIM = Claim("instance norm is better", "actions", INSTANCE, BASE, "gain")
ALL = [claim for claims in CLAIMS.values() for claim in claims]


def rows(norm: str, gains: list[float], data: str = "actions") -> list[Row]:
    return [Row(Cell(data, norm, seed=seed), "1", 1e-3, 10, 0.5, {"clean": 0.9, "gain 3": gain},
                1.0, 2.0, 3.0, "0123456789") for seed, gain in enumerate(gains)]  # fmt: skip


@pytest.mark.parametrize(
    ("gains", "result"),
    [
        ([0.6, 0.7, 0.8], HOLDS),  # differences of 0.1
        ([0.4, 0.5, 0.6], REFUTED),
        ([0.6, 0.5, 0.8], UNDECIDED),  # 0.1, -0.1, 0.1
        ([0.6, 0.7], NOT_RUN),
    ],
)
def test_a_claim_is_what_the_interval_of_differences_says(gains: list[float], result: str) -> None:
    found, differences = judge(CLAIM, [*rows("batch", [0.5, 0.6, 0.7]), *rows("instance", gains)])
    assert found == result
    assert len(differences) == len(gains)


def test_seeds_are_compared_with_themselves() -> None:
    """Unpaired, these two are not told apart: they vary by ten times their difference."""
    found = [*rows("batch", [0.2, 0.5, 0.8]), *rows("instance", [0.23, 0.53, 0.83])]
    assert judge(CLAIM, found)[0] == HOLDS
    shuffled = [*rows("batch", [0.2, 0.5, 0.8]), *rows("instance", [0.53, 0.83, 0.23])]
    assert judge(CLAIM, shuffled)[0] == UNDECIDED


def test_no_worse_allows_a_point() -> None:
    worse = [*rows("batch", [0.5, 0.6, 0.7]), *rows("instance", [0.4945, 0.595, 0.6955])]
    assert judge(CLAIM, worse)[0] == REFUTED
    assert judge(replace(CLAIM, above=-0.01), worse)[0] == HOLDS
    assert judge(replace(CLAIM, above=-0.001), worse)[0] == REFUTED


def test_seeds_that_suggested_a_claim_do_not_count() -> None:
    """All six say it, and of the later three one says the opposite."""
    found = [*rows("batch", [0.5] * 6), *rows("instance", [0.7, 0.71, 0.72, 0.6, 0.45, 0.61])]
    assert judge(replace(CLAIM, seeds=(0, 1, 2)), found)[0] == HOLDS
    result, differences = judge(replace(CLAIM, seeds=(3, 4, 5)), found)
    assert result == UNDECIDED
    assert differences == pytest.approx([0.1, -0.05, 0.11])
    assert judge(replace(CLAIM, seeds=(4, 5, 6)), found)[0] == NOT_RUN


def test_the_control_turns_the_verdict() -> None:
    found = [*rows("batch", [0.5, 0.6, 0.7]), *rows("instance", [0.6, 0.7, 0.8]),
             *rows(BROKEN, [0.45, 0.55, 0.65])]  # fmt: skip
    broken = replace(CLAIM, one=(BROKEN, EVERYWHERE, ""))
    assert [judge(claim, found)[0] for claim in (CLAIM, broken)] == [HOLDS, REFUTED]


def test_who_is_not_shown_to_be_worse_than_the_best_is_named_with_it() -> None:
    found = [*rows("batch", [0.80, 0.82, 0.81]), *rows("instance", [0.79, 0.83, 0.80]),
             *rows("group", [0.70, 0.72, 0.71]), *rows("layer", [0.9, 0.9])]  # fmt: skip
    order = [INSTANCE, ("group", EVERYWHERE, ""), BASE, ("layer", EVERYWHERE, "")]
    assert best(found, "actions", "gain", order) == [BASE, INSTANCE]
    assert best(found, "actions", "nothing", order) == []


def test_every_claim_is_about_entries_and_tests_of_the_grid() -> None:
    known = {
        "streets": {*which.GROUPS["streets"], *OTHER_SENSORS,
                    *get_args(scan_corruptions.Corruption)},
        "actions": {*which.GROUPS["actions"], *get_args(clip_corruptions.Corruption)},
    }  # fmt: skip
    cells = {(cell.data, cell.norm, cell.place, cell.rival) for cell in grid() if not cell.rate}
    seeds = {(cell.data, cell.norm, cell.place, cell.rival, cell.seed) for cell in grid()}
    for claim in ALL:
        assert {(claim.data, *claim.one), (claim.data, *claim.other)} <= cells
        assert claim.test in known[claim.data]
        for seed in claim.seeds:
            assert {(claim.data, *entry, seed) for entry in (claim.one, claim.other)} <= seeds
    assert len({(claim.data, claim.one, claim.other, claim.test) for claim in ALL}) == len(ALL)


def test_the_pages_are_those_of_the_rows() -> None:
    """`tools/experiments.py --table true` writes them."""
    found = read(DOCS / "experiments.csv")
    assert (DOCS / "experiments.md").read_text(encoding="utf-8") == table.page(found)
    page = (DOCS / "which_norm.md").read_text(encoding="utf-8")
    assert page == which.page(found)


def test_scenes_nearer_to_the_real_scan_reach_the_mark() -> None:
    """What docs/training_scans.md says of the suburbs with gardens, and of towns."""
    def real(variant: str, norm: str = "batch", rival: str = "intensity") -> list[float]:
        of = Cell("streets", norm, rival=rival, variant=variant)
        return [row.scores[REAL] for row in read(DOCS / "experiments.csv")
                if not row.cell.rate and replace(row.cell, seed=0) == of]  # fmt: skip

    gardens, towns = real("garden suburb"), real("plain")
    assert len(gardens) == 3
    assert fmean(gardens) >= 0.45
    assert fmean(towns) < 0.2
    page = (DOCS / "training_scans.md").read_text(encoding="utf-8")
    interval = Interval.of(gardens)
    assert f"**{fmean(gardens):.2f} over three seeds**" in page
    assert f"95% interval {interval.low:.2f} to {interval.high:.2f}" in page
    assert f"makes {fmean(towns):.2f}" in page
    batch, instance = (real("suburb", norm, "") for norm in ("batch", "instance"))
    assert f"They make {fmean(batch):.3f} and {fmean(instance):.3f}, nearly" in page


def test_advice_rests_on_claims_that_there_are() -> None:
    known = {(claim.says, claim.data, claim.test) for claim in ALL}
    for advice in ADVICE:
        assert advice.rests
        assert {(*about,) for *about, _ in advice.rests} <= known
        assert {result for *_, result in advice.rests} <= {HOLDS, REFUTED, UNDECIDED}


def test_advice_goes_when_one_of_its_results_turns() -> None:
    says = "instance norm is better than batch norm"
    rests = ((says, "actions", "gain", HOLDS), (says, "actions", "gamma", REFUTED))

    def scored(norm: str, gain: float, gamma: float) -> list[Row]:
        return [replace(row, scores={"gain 3": gain + row.cell.seed / 10, "gamma 3": gamma})
                for row in rows(norm, [0.0] * 3)]  # fmt: skip

    base = scored("batch", 0.4, 0.4)
    assert Advice("a", rests).shown([*base, *scored("instance", 0.5, 0.3)])
    assert not Advice("a", rests).shown([*base, *scored("instance", 0.5, 0.5)])
    assert not Advice("a", rests).shown([*base, *scored("instance", 0.3, 0.3)])
    assert not Advice("a", rests).shown(base)


def test_the_page_turns_with_the_rows() -> None:
    better = [*rows("batch", [0.5, 0.6, 0.7]), *rows("instance", [0.6, 0.7, 0.8])]
    worse = [*rows("batch", [0.5, 0.6, 0.7]), *rows("instance", [0.4, 0.5, 0.6])]
    says = "| instance norm is better than batch norm | clips, 3D-ResNet | gain |"
    for found, ends in ((better, "+10.0 [+10.0, +10.0] | **holds** |"),
                        (worse, "-10.0 [-10.0, -10.0] | **refuted** |"),
                        (better[:4], " | not run yet |")):  # fmt: skip
        line = next(line for line in which.page(found).splitlines() if line.startswith(says))
        assert line == f"{says} {ends}"
