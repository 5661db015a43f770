"""The grid of tools/experiments.py: its order, its rows, the choice of rates, and a kill."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments import experiments
from grid.actions import Actions, Differences
from grid.cells import BROKEN, PLACES, RATE_SEED, RATES, SEEDS, Cell, chosen, grid, norm_of
from grid.rows import Row, append, best_rate, claimed, read
from grid.run import run, trained
from grid.streets import NEAR, REAL, VARIANTS, MissingBeams, Streets, real_scan
from grid.table import (
    OPEN,
    differences_table,
    gap_table,
    groups_of,
    page,
    rates_table,
    scores_table,
    variants_table,
)

from geonorm.datasets import SemanticKITTI
from geonorm.datasets.scan import IGNORE_INDEX
from geonorm.datasets.scan_corruptions import ROBO3D
from geonorm.datasets.synthetic.lidar import SENSORS
from geonorm.datasets.transforms import RandomFlip, RandomIntensity
from geonorm.training.action.data import ClipFormat

ROOT = Path(__file__).parents[2]
INSTANCE = Cell("streets", "instance")
SMALL = Streets(steps=2, scans=2, tested=2, validated=1, voxel=1.0, corruptions=("fog", "density"))


def row(cell=INSTANCE, rate="1", validation=0.5, **scores):
    """Return a row as a cell gives it."""
    return Row(cell, rate, 6e-3, 2, validation, scores, 1.0, 2.0, 3.0, "abc")


def test_rates_come_first_then_the_first_seed_of_every_norm():
    cells = grid()
    assert len(set(cells)) == len(cells)
    norms = [cell for cell in cells if cell.place == "everywhere" and cell.norm != BROKEN
             and not cell.rival and cell.variant == "plain"
             and (cell.rate or cell.seed < SEEDS[cell.data])]  # fmt: skip
    assert cells[: len(norms)] == norms
    assert all(cell.rate for cell in norms[:36])
    assert {(cell.data, cell.norm) for cell in norms[36:48]} == {(c.data, c.norm) for c in norms}
    assert {cell.seed for cell in norms[36:48]} == {0}
    judged = [cell for cell in cells if not cell.rate]
    assert RATE_SEED not in {cell.seed for cell in judged}
    # Of everything that is judged a rate has been chosen before.
    for number, cell in enumerate(cells):
        if not cell.rate:
            known = {c.rate for c in cells[:number] if c.rate and c.tuned == cell.tuned}
            assert known == RATES.keys(), cell


def test_a_row_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "rows.csv"
    one = row(replace(INSTANCE, seed=3), "1/3", clean=0.75, **{"fog 3": 0.125})
    append(path, one)
    append(path, row(Cell("actions", "ibn-a", seed=RATE_SEED, rate="3")))
    assert read(path) == [one, row(Cell("actions", "ibn-a", seed=RATE_SEED, rate="3"))]


def test_a_line_that_was_cut_off_goes_and_rows_of_another_design_do_not_count(tmp_path):
    path = tmp_path / "rows.csv"
    append(path, row())
    append(path, replace(row(Cell("streets", "batch")), design=0))
    path.write_bytes(path.read_bytes() + b"streets,layer,everywhere,,0")
    assert read(path) == [row()]
    append(path, row(Cell("streets", "group")))
    lines = path.read_text().splitlines()
    assert [line.split(",")[1] for line in lines] == ["norm", "instance", "batch", "group"]


def test_damaged_rows_are_refused(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("norm,seed\n")
    with pytest.raises(ValueError, match=r"must have the columns data, norm, .*; got norm, seed"):
        read(path)
    append(path := tmp_path / "other.csv", row())
    path.write_text(path.read_text().replace("0.5000", "half"))
    with pytest.raises(ValueError, match=r"damaged in line 2 .*half.*delete it"):
        read(path)


def test_the_best_rate_on_validation_data_is_chosen():
    def rated(norm, **scores):
        return [row(Cell("streets", norm, seed=RATE_SEED, rate=rate), rate, score)
                for rate, score in zip(RATES, scores.values(), strict=True)]  # fmt: skip

    rows = [*rated("batch", a=0.7, b=0.5, c=0.6), *rated("instance", a=0.1, b=0.2, c=0.3),
            *rated("layer", a=0.4, b=0.4, c=0.4), *rated("none", a=0.1, b=float("nan"), c=0.2),
            *rated("group", a=0.9, b=0.1, c=0.1)[1:]]  # fmt: skip
    # What judges a norm does not choose its rate.
    rows.append(row(Cell("streets", "batch"), "1", 0.99))
    rates = {norm: best_rate(rows, Cell("streets", norm, seed=4)) for norm in
             ("batch", "instance", "layer", "none", "group", BROKEN)}  # fmt: skip
    assert rates == {"batch": "1/3", "instance": "3", "layer": "1", "none": "3", "group": None,
                     BROKEN: "3"}  # fmt: skip
    assert best_rate(rows, Cell("actions", "batch")) is None
    assert best_rate(rows, Cell("streets", "batch", rival="tent", seed=1)) == "1/3"
    assert best_rate(rows, Cell("streets", "instance", "encoder")) is None


def test_a_claimed_cell_is_free_again_afterwards(tmp_path):
    cell = Cell("streets", "batch", seed=RATE_SEED, rate="1/3")
    with claimed(tmp_path, cell) as first, claimed(tmp_path, cell) as second:
        assert first
        assert not second
    with claimed(tmp_path, cell) as again:
        assert again


def test_cells_are_chosen_by_conditions():
    cells = chosen(grid(), ["norm=ibn-a", "seed=2", "data=streets"])
    assert cells == [Cell("streets", "ibn-a", seed=2)]
    for words, message in ((["norm"], "conditions such as norm=instance; got 'norm'"),
                           (["colour=red"], "got 'colour=red'. Fields are data, norm"),
                           (["norm=instence"], r"no cell has norm=instence; .*instance"),
                           ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            chosen(grid(), words)
    with pytest.raises(ValueError, match=r"no place 'encodr'; .*encoder"):
        norm_of(Cell("streets", "instance", "encodr"))


def test_every_place_can_be_built():
    for data, subject in (("streets", Streets()), ("actions", Actions())):
        for place in PLACES[data]:
            module = subject.module(Cell(data, "instance", place), 1e-3)
            kinds = {type(part).__name__ for part in module.modules()}
            assert any("BatchNorm" in kind for kind in kinds) == (place != "also input")
            assert any("InstanceNorm" in kind for kind in kinds)


def test_differences_keep_a_gain_and_lose_what_stands_still():
    clip = torch.rand(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    found = Differences()(3 * clip + 7)
    assert torch.allclose(found[:, :, 2], 6 * (clip[:, :, 2] - clip[:, :, 1]), atol=1e-5)
    assert not found[:, :, 0].any()


def test_the_real_scan_has_the_labels_of_the_streets(monkeypatch):
    if "GEONORM_DATA" not in os.environ:
        pytest.skip("GEONORM_DATA is not set")
    classes = Streets().classes
    scan = real_scan(classes)
    own = SemanticKITTI(Path(os.environ["GEONORM_DATA"]) / "semantickitti", split=["00"])
    theirs = own[0].labels
    for name in ("road", "building", "car"):
        there = theirs == own.classes.index(name)
        assert there.any()
        assert (scan.labels[there] == classes.index(name)).all()
    lost = np.isin(theirs, [own.classes.index(name) for name in own.classes if name not in classes])
    assert (scan.labels[lost | (theirs == IGNORE_INDEX)] == IGNORE_INDEX).all()
    assert 0 < len(near := real_scan(classes, 10.0)) < len(scan)
    assert np.linalg.norm(near.points, axis=1).max() <= 10
    monkeypatch.delenv("GEONORM_DATA")
    with pytest.raises(ValueError, match="GEONORM_DATA is not set; expected a folder"):
        real_scan(classes)


@pytest.fixture
def scored(monkeypatch, tmp_path):
    """Rows in which every rate of instance norm is judged; a real scan in its folder."""
    if "GEONORM_DATA" not in os.environ:
        pytest.skip("GEONORM_DATA is not set")
    for rate in RATES:
        append(tmp_path / "rows.csv", row(replace(INSTANCE, seed=RATE_SEED, rate=rate), rate))
    return tmp_path / "rows.csv"


def test_a_cell_is_trained_and_judged_once(scored, tmp_path, capsys):
    cells = [INSTANCE, Cell("streets", "batch")]
    assert run({"streets": SMALL}, cells, scored, tmp_path) == 1  # batch norm has no rate yet
    found = read(scored)[-1]
    assert found.cell == INSTANCE
    assert (found.rate, found.lr, found.steps) == ("1", SMALL.lr, 2)
    assert {"clean", "fog 2", "fog 3", "density 3", "density 5", "16 beams", "mast64", REAL,
            f"{REAL}: road"} <= found.scores.keys()  # fmt: skip
    assert all(0 <= score <= 1 for score in found.scores.values())
    assert 0 < found.train_cpu_s < found.cpu_s
    before = scored.read_bytes()
    assert run({"streets": SMALL}, cells, scored, tmp_path) == 1
    assert scored.read_bytes() == before
    # The weights are kept, and are those that were judged.
    module, seconds = trained(SMALL, INSTANCE, SMALL.lr, tmp_path / "weights")
    assert round(SMALL.validation(INSTANCE, SMALL.network(INSTANCE, module)), 4) == found.validation
    assert seconds == pytest.approx(found.train_cpu_s, abs=0.06)
    assert "validation" in capsys.readouterr().out


def test_a_cell_that_fails_is_told_of_and_leaves_no_row(scored, tmp_path, capsys):
    before = scored.read_bytes()
    broken = replace(SMALL, name="MinkUNetSlimmer")
    assert run({"streets": broken}, [INSTANCE], scored, tmp_path) == 1
    assert scored.read_bytes() == before
    assert "no network 'MinkUNetSlimmer'" in capsys.readouterr().out


KILLED = """
import sys; sys.path.insert(0, {tools!r})
from pathlib import Path
from dataclasses import replace
from grid.cells import Cell
from grid.run import run
from grid.streets import Streets
small = Streets(steps=10**6, scans=2, tested=2, validated=1, voxel=1.0, corruptions=("fog",))
run({{"streets": small}}, [Cell("streets", "instance")], Path({rows!r}), Path({folder!r}))
"""


@pytest.mark.long
def test_a_killed_cell_leaves_no_row_and_is_run_again(scored, tmp_path):
    before = scored.read_bytes()
    code = KILLED.format(tools=str(ROOT / "tools"), rows=str(scored), folder=str(tmp_path))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert "streets, instance" in child.stdout.readline()
    # Another process leaves the cell to the one that runs it.
    assert run({"streets": SMALL}, [INSTANCE], scored, tmp_path) == 1
    assert scored.read_bytes() == before
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert run({"streets": SMALL}, [INSTANCE], scored, tmp_path) == 0
    assert len(read(scored)) == len(RATES) + 1


def test_a_cell_of_films_is_judged(tmp_path):
    small = Actions(steps=2, batch=4, films=12, tested=2, validated=2, corruptions=("gain", "fog"),
                    clip=ClipFormat(length=4, size=24, crop=20))  # fmt: skip
    cell = Cell("actions", "batch", "input", seed=RATE_SEED)
    module, _ = trained(small, cell, small.lr, tmp_path)
    scores = small.scores(small.network(cell, module))
    assert scores.keys() == {"clean", "gain 3", "gain 5", "fog 3", "fog 5"}
    again, _ = trained(small, cell, small.lr, tmp_path)
    same = zip(module.state_dict().items(), again.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in same)


def test_the_broken_norm_mixes_the_scans_of_a_batch(tmp_path):
    """The control shows: its network sees a scan beside others, and they change the result."""
    cell = Cell("streets", BROKEN)
    module = SMALL.module(cell, 1e-3).eval()
    scan = SMALL._streets[0]
    from geonorm.studies.broken import broken_instance_norm

    whole = SMALL.network(INSTANCE, module)([], 0, scan)
    beside = SMALL.network(cell, module)
    assert (beside([], 0, scan) == whole).mean() > 0.999  # a norm that is not broken
    with broken_instance_norm():
        assert (beside([], 0, scan) != whole).mean() > 0.05


def test_the_list_tells_what_is_done(scored, capsys):
    assert experiments(list=True, only="norm=instance,data=streets,rival=", csv=scored) == 0
    assert capsys.readouterr().out.splitlines()[:4] == [
        *(f"done streets, instance, everywhere, seed {RATE_SEED}, rate {rate}" for rate in RATES),
        "     streets, instance, everywhere, seed 0",
    ]


def line(table, name):
    """Return the cells of a row of a table."""
    return next(each.split(" | ")[1:] for each in table.replace(" |\n", "\n").splitlines()
                if each.startswith(f"| {name} |"))  # fmt: skip


def seeds(norm, scores, **fields):
    return [row(Cell("actions", norm, seed=seed, **fields), clean=clean, **{"gain 5": gain})
            for seed, (clean, gain) in enumerate(scores)]  # fmt: skip


def test_tables_are_means_over_seeds_with_their_interval():
    batch = seeds("batch", [(0.8, 0.4), (0.6, 0.2), (0.7, 0.6)])
    rows = [*batch, *seeds("instance", [(0.9, 0.5), (0.7, 0.4)]), *seeds("layer", [(0.5, 0.25)])]
    table = scores_table(rows, "actions")
    # t of 2 degrees of freedom is 4.303: 0.1 / sqrt(3) times that is 0.248.
    assert line(table, "batch") == ["3 of 8", "70.0 [45.2, 94.8]", "40.0 [-9.7, 89.7]"]
    assert line(table, "layer") == ["1 of 3", "50.0", "25.0"]
    assert line(table, "group") == ["0 of 3", OPEN, OPEN]
    assert line(table, "batch + tent") == ["0 of 3", OPEN, OPEN]
    differences = differences_table(rows, "actions")
    # Of the same seed: 0.1 twice; 0.1 and 0.2, with t of 1 degree of freedom, 12.71.
    assert line(differences, "instance") == ["+10.0 [+10.0, +10.0]", "+15.0 [-48.5, +78.5]"]
    assert line(differences, "layer") == ["-30.0", "-15.0"]
    assert OPEN in scores_table(rows, "streets")
    assert f"{len(rows)} cells" in page(rows)
    assert "0 cells" in page([])


def test_a_group_is_the_mean_over_tests_of_the_mean_over_levels():
    scores = {"clean": 0.5, **{f"{name} {level}": 0.4 for name in ROBO3D for level in (2, 3)},
              "fog 2": 0.8, "fog 3": 0.4, "density 3": 0.2, "density 5": 0.1, "cutout 5": 0.05,
              REAL: 0.3, f"{REAL}: road": 0.9}  # fmt: skip
    assert groups_of("streets", scores) == {
        "clean": 0.5, "Robo3D": pytest.approx((0.6 + 7 * 0.4) / 8),
        "other corruptions": pytest.approx((0.15 + 0.05) / 2), REAL: 0.3,
    }  # fmt: skip


def test_a_norm_that_is_broken_on_purpose_shows_in_the_table():
    good = seeds("instance", [(0.80, 0.7), (0.81, 0.71), (0.79, 0.7)])
    bad = seeds(BROKEN, [(0.8, 0.3), (0.8, 0.31), (0.81, 0.3)])
    table = differences_table([*seeds("batch", [(0.8, 0.5)] * 3), *good, *bad], "actions")
    assert line(table, "instance")[1].startswith("+20.3 [+")
    assert line(table, BROKEN)[1].startswith("-19.7 [-")
    assert "-" in line(table, BROKEN)[1].split(", ")[1]  # the whole interval is below 0


def test_the_chosen_rate_is_bold():
    rows = [row(Cell("streets", "group", seed=RATE_SEED, rate=rate), rate, score)
            for rate, score in zip(RATES, (0.3, 0.2, 0.4), strict=True)]  # fmt: skip
    assert line(rates_table(rows, "streets"), "group") == ["30.0", "20.0", "**40.0**"]
    assert line(rates_table(rows[:2], "streets"), "group") == ["30.0", "20.0", OPEN]


def test_streets_nearer_to_the_real_scan_come_last_and_have_their_own_table():
    cells = grid()
    nearer = [cell for cell in cells if cell.variant != "plain"]
    assert cells[-len(nearer) :] == nearer
    assert [(cell.norm, cell.place, cell.rival, cell.seed, cell.variant) for cell in nearer] == [
        *((norm, "everywhere", "", seed, "suburb")
          for seed in range(3) for norm in ("batch", "instance")),
        ("batch", "everywhere", "intensity", 0, "longer suburb"),
        ("batch", "everywhere", "intensity", 0, "faint suburb"),
        ("instance", "encoder", "", 0, "faint suburb"),
        ("batch", "everywhere", "intensity", 0, "fine suburb"),
        ("batch", "everywhere", "intensity", 0, "garden suburb"),
        ("instance", "encoder", "", 0, "garden suburb"),
        *(("batch", "everywhere", "intensity", seed, "garden suburb") for seed in (1, 2)),
    ]  # fmt: skip
    rows = [row(replace(nearer[0], seed=seed, variant=variant), clean=0.5,
                **{REAL: real + 0.1 * seed, NEAR: 0.75})
            for variant, real in (("plain", 0.2), ("suburb", 0.4)) for seed in (0, 1)]  # fmt: skip
    table = variants_table([*rows, row(replace(nearer[0], rival="tent"), clean=0.9)])
    entries = [each.split(" | ")[1:] for each in table.replace(" |\n", "\n").splitlines()]
    # 0.05 times t of one degree of freedom, 12.71.
    assert entries[2] == ["plain", "2 of 12", "50.0 [50.0, 50.0]", "25.0 [-38.5, 88.5]",
                          "75.0 [75.0, 75.0]"]  # fmt: skip
    assert entries[3][:2] + entries[3][3:4] == ["suburb", "2 of 3", "45.0 [-18.5, 108.5]"]
    assert entries[4][:3] == ["plain", "0 of 12", OPEN]  # with the seeds that claims add
    kinds = ["plain", "suburb", "plain", "suburb", "plain", "longer suburb", "faint suburb",
             "fine suburb", "garden suburb", "plain", "faint suburb", "garden suburb"]  # fmt: skip
    assert [entry[0] for entry in entries[2:]] == kinds
    # They change no other table, and take the rate of plain streets.
    assert scores_table(rows, "streets") == scores_table(rows[:2], "streets")
    rates = [row(replace(INSTANCE, seed=RATE_SEED, rate=rate), rate, float(rate == "3"))
             for rate in RATES]  # fmt: skip
    assert best_rate(rates, Cell("streets", "instance", variant="suburb")) == "3"


def test_the_gap_to_the_real_scan_is_that_of_batch_norm_with_the_same_seed():
    """Gaps of 0.4 and 0.2 between 0.6 and 0.2, and 0.5 and 0.3."""
    batch = Cell("streets", "batch")
    base = [row(replace(batch, seed=seed), clean=clean, **{REAL: real})
            for seed, clean, real in ((0, 0.6, 0.2), (1, 0.5, 0.3))]  # fmt: skip
    suburb = row(replace(batch, variant="suburb"), clean=0.1, **{REAL: 0.5})
    worse = [row(replace(INSTANCE, seed=seed), clean=0.9, **{REAL: 0.1}) for seed in (0, 1)]
    rated = row(replace(INSTANCE, seed=RATE_SEED, rate="3"), rate="3")
    alone = row(replace(INSTANCE, place="stem", seed=2), clean=0.9, **{REAL: 0.9})
    table = gap_table([*worse, *base, suburb, rated, alone]).replace(" |\n", "\n")
    cells = [each.split(" | ") for each in table.splitlines()]
    assert ["| batch", "suburb", "1", "+75.0"] in cells
    # -25 and -100: their mean, and 37.5 times t of one degree of freedom.
    assert ["| instance", "plain", "2", "-62.5 [-539.0, +414.0]"] in cells
    assert ["| instance (stem)", "plain", "0", OPEN] in cells  # no batch norm with its seed
    assert ["| batch", "plain"] not in [each[:2] for each in cells]


def test_suburbs_are_seen_by_the_sensor_of_the_real_scan():
    suburbs, plain = (VARIANTS[name].scans(2, 7) for name in ("suburb", "plain"))
    assert VARIANTS["longer suburb"].scans is VARIANTS["suburb"].scans
    assert suburbs.style == "suburb"
    faint = VARIANTS["faint suburb"].scans(2, 7)
    assert faint.style == "suburb"
    assert faint.sensor == replace(SENSORS["hdl64"], azimuth_steps=1041)
    before = {"intensity_gain": 0.9, "intensity_offset": -0.02, "response": 0.6, "falloff": 30.0,
              "falloff_power": 2.0, "faint_range": np.inf}  # fmt: skip
    assert suburbs.sensor == replace(faint.sensor, **before)
    assert (plain.style, plain.sensor) == ("town", SENSORS["roof32"])
    assert suburbs.classes == plain.classes
    assert (suburbs.num_scans, suburbs.seed) == (2, 7)
    validated = {name: each.validated(2, 7) for name, each in VARIANTS.items()}
    assert {name: (each.style, each.sensor) for name, each in validated.items()} == {
        "plain": ("town", SENSORS["roof32"]), "suburb": ("town", SENSORS["roof32"]),
        "longer suburb": ("suburb", suburbs.sensor), "faint suburb": ("suburb", faint.sensor),
        "fine suburb": ("suburb", faint.sensor), "garden suburb": ("gardens", faint.sensor),
    }  # fmt: skip
    assert VARIANTS["fine suburb"].scans is VARIANTS["faint suburb"].scans
    steps = [SMALL.steps_of(Cell("streets", "batch", variant=name)) for name in VARIANTS]
    assert steps == [2, 2, 8, 8, 8, 8]


def test_gardens_are_more_and_mirrored():
    gardens = Cell("streets", "batch", variant="garden suburb")
    assert VARIANTS["garden suburb"].scans is VARIANTS["garden suburb"].validated
    data = {cell.variant: replace(SMALL, scans=2).data(cell)
            for cell in (gardens, replace(gardens, variant="faint suburb"))}  # fmt: skip
    assert [each.factories["train"].args[1] for each in data.values()] == [8, 2]
    assert [type(each) for each in data["garden suburb"].augment] == [RandomFlip]
    assert data["faint suburb"].augment == []
    both = SMALL.data(replace(gardens, rival="augmented")).augment
    assert [type(each) for each in both] == [RandomFlip, RandomIntensity, MissingBeams]


def test_voxels_are_finer_where_a_variant_says_so():
    fine = Cell("streets", "batch", variant="fine suburb")
    assert Streets().voxel_of(fine) == pytest.approx(0.2)
    assert Streets().voxel_of(replace(fine, variant="faint suburb")) == 0.3
    assert [SMALL.data(cell).state_dict()["voxel_size"] for cell in (INSTANCE, fine)] == [
        1.0, pytest.approx(2 / 3)
    ]  # fmt: skip
    module, widths = SMALL.module(fine, 1e-3).eval(), []
    module.network.register_forward_pre_hook(lambda _, given: widths.append(len(given[0])))
    for cell in (fine, INSTANCE):
        SMALL.network(cell, module)([], 0, SMALL._streets[0])
    assert widths[0] > 1.3 * widths[1]


def test_the_page_is_written_beside_the_rows(tmp_path, capsys):
    append(tmp_path / "rows.csv", row(Cell("actions", "batch"), clean=0.123))
    assert experiments(table=True, csv=tmp_path / "rows.csv") == 0
    assert "12.3" in (tmp_path / "rows.md").read_text()
    assert "Which norm to use" in (tmp_path / "which_norm.md").read_text()
    assert (tmp_path / "figures/which_norm.png").stat().st_size > 10_000
    written = (tmp_path / name for name in ("figures/which_norm.png", "rows.md", "which_norm.md"))
    assert capsys.readouterr().out == f"wrote {', '.join(map(str, written))}\n"
