"""Duplicated and thinned scans: which changes of density instance norm does not see."""

from collections.abc import Mapping
from functools import lru_cache, partial
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geonorm.datasets.scan import Scan
from geonorm.norms.batch_norm import BatchNorm
from geonorm.norms.instance_norm import InstanceNorm
from geonorm.studies.density import (
    THINNINGS,
    NeighbourInstanceNorm,
    Voxels,
    nearer_half,
    neighbour_weights,
    scan_weights,
    uneven_quarter,
)
from geonorm.studies.outcome import Outcome
from geonorm.studies.point_nets import of_voxels, small_minkunet, voxel_iou, voxel_loss
from geonorm.studies.study import Part, Quantity, Setting, Study, Test
from geonorm.studies.training import fit
from geonorm.training.invariance.table import change as relative_change

# A change of the output below this share of its size is called robust.
ROBUST = 0.1
WIDTH = 32
VOXEL, NETWORK_VOXEL = 0.2, 0.4  # metres
TIMES = {"twice": 2, "3 times": 3, "7 times": 7}
POWERS = (-2, -1, 0, 1, 2)
IN, BN = "instance norm", "batch norm, training"
NEAR, FAR = "1/neighbours in 0.5 m", "1/neighbours in 2 m"
RADII = {NEAR: 0.5, FAR: 2.0}


@lru_cache(maxsize=8)
def streets(count: int, seed: int) -> list[Scan]:
    """Return scans of built-in streets."""
    from geonorm.datasets.synthetic.streets import SyntheticStreets

    dataset = SyntheticStreets(count, seed)
    return [dataset[i] for i in range(count)]


def _four(setting: Setting) -> list[Scan]:
    return streets(4, 100 + setting.seed)


def _rng(setting: Setting) -> np.random.Generator:
    return np.random.default_rng((7, setting.seed))


def _stem(seed: int) -> nn.Module:
    """Return a per-point network with random weights, 4 features to `WIDTH`."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


def _features(scans: list[Scan]) -> tuple[Tensor, Tensor]:
    """Return x, y, z, scaled, and intensity of all points, (N, 4), and the scan of each."""
    from geonorm.datasets.voxelize import FEATURE_SCALE

    scale = np.asarray(FEATURE_SCALE, np.float32)
    rows = [torch.from_numpy(np.column_stack([scan.points / scale, scan.feature("intensity")]))
            for scan in scans]  # fmt: skip
    index = torch.arange(len(scans)).repeat_interleave(torch.tensor([len(s) for s in scans]))
    return torch.cat(rows), index


@torch.no_grad()
def _norm(column: str, stem: nn.Module) -> nn.Module:
    """Return a norm without parameters; in evaluation, batch norm has the statistics of streets."""
    if not column.startswith("batch norm"):
        return InstanceNorm(WIDTH, affine=False)
    norm = BatchNorm(WIDTH, affine=False, momentum=None)
    if column != BN:
        norm(stem(_features(streets(4, 100))[0]))
        norm.eval()
    return norm


@torch.no_grad()
def _normed(column: str, scans: list[Scan], stem: nn.Module, counts: Tensor | None) -> Tensor:
    """Return the rows of all scans behind stem and norm, (N, `WIDTH`).

    Args:
        column: the norm.
        scans: the batch.
        stem: lifts the features.
        counts: how often each point is there, (N,), for weights of 1 over it.
    """
    rows, index = _features(scans)
    options = {}
    if column in RADII:
        weights = [scan_weights(scan, RADII[column]) for scan in scans]
        options["point_weights"] = torch.cat(weights)
    elif column == "1/multiplicity" and counts is not None:
        options["point_weights"] = 1 / counts
    out: Tensor = _norm(column, stem)(stem(rows), index, **options)
    return out


def duplication(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure how far outputs move when the first of four scans has its points several times."""
    scans, rng, stem = _four(setting), _rng(setting), _stem(setting.seed)
    size, others = len(scans[0]), sum(len(scan) for scan in scans[1:])
    before = _normed(column, scans, stem, None)
    struck = nearer_half(scans[0]) if setting.mutated else np.ones(size, dtype=bool)
    values = {}
    copies = {name: np.full(size, k) for name, k in TIMES.items()}
    copies["1 to 7 times at random"] = rng.integers(1, 8, size)
    for name, times in copies.items():
        times = np.where(struck, times, 1)
        rows = np.repeat(np.arange(size), times)
        counts = torch.cat([torch.from_numpy(times[rows]).float(), torch.ones(others)])
        after = _normed(column, [scans[0].take(rows), *scans[1:]], stem, counts)
        values[name] = relative_change(before[:size][rows], after[: len(rows)])
        if name == "7 times":
            values["7 times, the other scans"] = relative_change(before[size:], after[len(rows) :])
    return values


def _kept(name: str, scan: Scan, setting: Setting, rng: np.random.Generator) -> np.ndarray:
    """Return which points a thinning keeps; the mutation lets it strike the nearer half alone."""
    kept = THINNINGS[name](scan, rng)
    return kept | ~nearer_half(scan) if setting.mutated else kept


def thinning(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure how far the outputs of the points that stay move when others of the scan go."""
    scans, rng, stem = _four(setting), _rng(setting), _stem(setting.seed)
    before = _normed(column, scans, stem, None)
    values = {}
    for name in THINNINGS:
        rows = np.flatnonzero(_kept(name, scans[0], setting, rng))
        after = _normed(column, [scans[0].take(rows), *scans[1:]], stem, None)
        values[name] = relative_change(before[rows], after[: len(rows)])
    return values


def unevenness(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure a quarter of the points, drawn with a weight of range to some power."""
    scans, rng, stem = _four(setting)[:1], _rng(setting), _stem(setting.seed)
    before = _normed(column, scans, stem, None)
    values = {}
    for power in POWERS:
        rows = np.flatnonzero(uneven_quarter(scans[0], power, rng))
        after = _normed(column, [scans[0].take(rows)], stem, None)
        values[f"power {power}"] = relative_change(before[rows], after)
    return values


CLOSED = {"random half": 0.5, "random quarter": 0.25}
DRAWS = 10_000


@torch.no_grad()
def closed_form(column: str, setting: Setting) -> Mapping[str, float]:
    """Compare the root mean square change over many draws with what the moments predict.

    The mean of n of N points is off by a share of the deviation whose square is, on average,
    (1 - n/N) / n · N / (N - 1); the deviation by (kurtosis - 1) / 4 of that.
    """
    rng = np.random.default_rng(3)
    scan = streets(4, 100)[0]
    rows, index = _features([scan.take(rng.choice(len(scan), 2000, replace=False))])
    rows = _stem(0)(rows)[:, :4].double()
    norm = InstanceNorm(4, affine=False).double()
    whole = norm(rows, index)
    share = CLOSED[column]
    n, total, draws = round(share * len(rows)), 0.0, 500
    for _ in range(DRAWS // draws):
        chosen = np.argpartition(rng.random((draws, len(rows))), n, axis=1)[:, :n]
        moved = norm(rows[chosen].mT) - whole[chosen].mT
        total += float(moved.square().mean((1, 2)).sum())
    kurtosis = ((rows - rows.mean(0)) / rows.std(0, correction=0)).pow(4).mean(0)
    of_mean = (1 - share) / n * len(rows) / (len(rows) - 1)
    predicted = sqrt(of_mean * float((1 + (kurtosis - 1) / 4).mean()))
    measured = sqrt(total / DRAWS)
    return {"measured": measured, "predicted": predicted, "ratio": measured / predicted}


@torch.no_grad()
def _voxels_normed(column: str, voxels: Voxels, stem: nn.Module) -> Tensor:
    """Return the features of voxels behind stem and norm."""
    batch = voxels.batch
    index, rows = batch.coordinates[:, 0].long(), stem(batch.features)
    options = {}
    if column == "points of each voxel":
        options["point_weights"] = torch.bincount(batch.inverse, minlength=len(rows)).float()
    elif column in RADII:
        centres = batch.coordinates[:, 1:].numpy() * voxels.size
        weights = [neighbour_weights(centres[index == i], RADII[column])
                   for i in range(int(index[-1]) + 1)]  # fmt: skip
        options["point_weights"] = torch.cat(weights)
    out: Tensor = _norm(column, stem)(rows, index, **options)
    return out


def voxels(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure the same where instance norm sees the voxels of a scan in place of its points."""
    scans, rng, stem = _four(setting), _rng(setting), _stem(setting.seed)
    before = Voxels(scans, VOXEL)
    out = _voxels_normed(column, before, stem)
    values = {}
    for name in ("7 times", *THINNINGS):
        rows = np.repeat(np.arange(len(scans[0])), 7) if name == "7 times" else np.flatnonzero(
            _kept(name, scans[0], setting, rng))  # fmt: skip
        after = Voxels([scans[0].take(rows), *scans[1:]], VOXEL)
        mine, theirs = before.common(after)
        values[name] = relative_change(out[mine], _voxels_normed(column, after, stem)[theirs])
    return values


LOGITS = ("7 times", "random half", "random tenth", "every 4th beam", "thinned by range")


def logits(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure the logits of MinkUNet14A with random weights."""
    from geonorm.models import MinkUNet14A

    scans, rng = _four(setting)[: 2 if column == BN else 1], _rng(setting)
    norm = {IN: "instance", BN: "batch"}.get(column, "none")
    model = MinkUNet14A(4, 11, norm=norm).train()

    @torch.no_grad()
    def output(given: Voxels) -> Tensor:
        return of_voxels(model, given.batch.features, given.batch.coordinates)

    before = Voxels(scans, NETWORK_VOXEL)
    out = output(before)
    values = {}
    for name in LOGITS:
        rows = np.repeat(np.arange(len(scans[0])), 7) if name == "7 times" else np.flatnonzero(
            _kept(name, scans[0], setting, rng))  # fmt: skip
        after = Voxels([scans[0].take(rows), *scans[1:]], NETWORK_VOXEL)
        mine, theirs = before.common(after)
        level = out[mine].mean(0)  # the classifier's bias is no answer
        values[name] = relative_change(out[mine] - level, output(after)[theirs] - level)
    return values


def trained(column: str, setting: Setting) -> Mapping[str, float]:
    """Train a small MinkUNet on streets as they are; test it on thinned ones."""
    from geonorm.datasets.synthetic.streets import SyntheticStreets
    from geonorm.datasets.voxelize import ScanBatch, collate_scans

    rng = _rng(setting)
    scans, classes = streets(24, 200 + setting.seed), len(SyntheticStreets.classes)

    def draw() -> ScanBatch:
        chosen = [scans[i] for i in rng.choice(len(scans), 2, replace=False)]
        return collate_scans(chosen, NETWORK_VOXEL)

    norm: Any = {IN: "instance", BN: "batch"}.get(
        column, partial(NeighbourInstanceNorm, voxel_size=NETWORK_VOXEL, radius=RADII[FAR])
    )
    net = small_minkunet(4, classes, norm)
    model = fit(net, draw, voxel_loss, steps=200, rate=5e-3)

    def score(name: str) -> float:
        kept = [scan if not name else scan.take(THINNINGS[name](scan, rng))
                for scan in streets(8, 300)]  # fmt: skip
        return voxel_iou(model, (collate_scans([scan], NETWORK_VOXEL) for scan in kept), classes)

    whole = score("")
    return {"mIoU": whole, **{f"lost: {name}": whole - score(name) for name in LOGITS[1:]}}


def real(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure the user's scan, its points and its voxels."""
    scan, rng, stem = setting.recordings.read_scan(), _rng(setting), _stem(setting.seed)
    kind, _, place = column.partition(", ")
    if place == "voxels":
        before = Voxels([scan], VOXEL)
        out = _voxels_normed(kind, before, stem)
    else:
        out = _normed(kind, [scan], stem, None)
    values = {}
    for name, thin in THINNINGS.items():
        kept = thin(scan, rng)
        if place == "voxels":
            after = Voxels([scan.take(kept)], VOXEL)
            mine, theirs = before.common(after)
            values[name] = relative_change(out[mine], _voxels_normed(kind, after, stem)[theirs])
        else:
            values[name] = relative_change(out[kept], _normed(kind, [scan.take(kept)], stem, None))
    return values


def draw(outcome: Outcome, figure: Any) -> None:
    """Draw change against unevenness, and the changes of density one by one."""
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
    for column, label in ((IN, "none"), (NEAR, NEAR), (FAR, FAR)):
        heights = [outcome.mean("unevenness", f"power {p}", column) for p in POWERS]
        left.plot(POWERS, heights, marker="o", label=label)
    left.axhline(ROBUST, color="grey", linestyle=":")
    left.set(xlabel="power p: points kept in proportion to range^p", ylim=(0, None),
             ylabel="relative change of the output", title="A quarter of a scan's points kept")
    left.legend(title="row weights of the norm", fontsize=8)
    rows = ["7 times", "1 to 7 times at random", *THINNINGS]
    shown = (("instance norm on points", "o", IN), ("… with 1/neighbours in 2 m", "^", FAR),
             ("… on voxels of 0.2 m", "s", IN), ("batch norm on points", "x", BN))  # fmt: skip
    for label, marker, column in shown:
        part = "voxels" if "voxels" in label else "thinning"
        pairs = []
        for place, row in enumerate(rows):
            name = "duplication" if "times" in row and part == "thinning" else part
            cell = Quantity(name, row, column)
            if cell in outcome.cells["claimed"]:
                pairs.append((max(outcome.interval(cell).mean, 1e-8), place))
        right.plot(*zip(*pairs, strict=True), marker, label=label, markersize=7)
    right.axvline(ROBUST, color="grey", linestyle=":")
    right.set_yticks(range(len(rows)), rows)
    right.invert_yaxis()
    right.set(xscale="log", xlabel="relative change of the output",
              title="One scan of four changed")  # fmt: skip
    right.legend(fontsize=8, loc="lower left")


THINNED = "thinning"
STUDY = Study(
    name="points",
    title="Points: duplicated and thinned scans",
    claim=(
        "Statistics of each scan of its own make a network independent of how many points a scan "
        "has: duplicated points change nothing, and it is robust to changes of density."
    ),
    sources=(
        "Qi et al. 2017 (PointNet++, on changes of density)",
        "Choy, Gwak and Savarese 2019 (MinkowskiEngine)",
        "Efraimidis and Spirakis 2006 (weighted draws without replacement)",
    ),
    tests=(
        Test("every point seven times changes nothing", Quantity("duplication", "7 times", IN),
             below=1e-5),
        Test("points one to seven times at random change nothing",
             Quantity("duplication", "1 to 7 times at random", IN), below=1e-5),
        Test("weights of 1/multiplicity make that exact",
             Quantity("duplication", "1 to 7 times at random", "1/multiplicity"), below=1e-5),
        Test("batch norm in training, the control, does see every point seven times",
             Quantity("duplication", "7 times", BN), above=0.01),
        Test("a random half moves it by what the moments predict",
             Quantity("closed form", "ratio", "random half"), above=0.99, below=1.01),
        Test("a random quarter moves it by what the moments predict",
             Quantity("closed form", "ratio", "random quarter"), above=0.99, below=1.01),
        Test("robust to losing half of the points at random",
             Quantity(THINNED, "random half", IN), below=ROBUST),
        Test("robust to losing nine points of ten at random",
             Quantity(THINNED, "random tenth", IN), below=ROBUST),
        Test("robust to losing three beams of four",
             Quantity(THINNED, "every 4th beam", IN), below=ROBUST),
        Test("robust to a density that depends on the range",
             Quantity(THINNED, "thinned by range", IN), below=ROBUST),
        Test("weights of 1/neighbours in 2 m make it robust to that",
             Quantity(THINNED, "thinned by range", FAR), below=ROBUST),
        Test("over voxels, robust to losing half of the points at random",
             Quantity("voxels", "random half", IN), below=ROBUST),
        Test("MinkUNet's logits are robust to losing half of the points at random",
             Quantity("logits", "random half", IN), below=ROBUST),
        Test("trained, it loses less than 0.05 of mIoU to a density that depends on the range",
             Quantity("trained", "lost: thinned by range", IN), below=0.05),
        Test("and less than with batch norm", Quantity("trained", "lost: thinned by range", BN),
             minus=Quantity("trained", "lost: thinned by range", IN), above=0),
        Test("weights of 1/neighbours in its norms take some of that loss back",
             Quantity("trained", "lost: thinned by range", IN),
             minus=Quantity("trained", "lost: thinned by range", FAR), above=0),
    ),
    parts=(
        Part("duplication", "Relative change of the output, one scan of four duplicated",
             (IN, "1/multiplicity", BN, "batch norm, evaluation"), duplication),
        Part("closed form", "Root mean square of the relative change, 10,000 draws of 2,000 points",
             tuple(CLOSED), closed_form, seeded=False, variants=("broken",)),
        Part("thinning", "Relative change of the output at the points that stay, one scan of four "
             "thinned", (IN, NEAR, FAR, BN), thinning),
        Part("unevenness", "Relative change of the output, a quarter of the points drawn with a "
             "weight of range to a power", (IN, NEAR, FAR), unevenness),
        Part("voxels", "Relative change of the output at the voxels that stay, 0.2 m",
             (IN, "points of each voxel", FAR, BN, "batch norm, evaluation"), voxels),
        Part("logits", "Relative change of the logits of MinkUNet14A with random weights, 0.4 m",
             (IN, BN, "no norm"), logits, seeded=False),
        Part("trained", "mIoU of a small MinkUNet on other streets, and what thinning takes of it",
             (IN, FAR, BN), trained, long=True, variants=()),
        Part("real scan", "Relative change of the output at what stays of the user's scan",
             (f"{IN}, points", f"{FAR}, points", f"{IN}, voxels", f"{FAR}, voxels"),
             real, long=True, seeded=False, needs="scan"),
    ),
    mutation=(
        "Only the half of the points nearer to the sensor is duplicated or thinned, so that the "
        "density changes unevenly."
    ),
    notes="""
Four scans of built-in streets of about 11,000 points each go through a per-point network with
random weights and a norm; one of the four is changed, and the outputs of the points that stay are
compared. *Robust* means here that they move by less than a tenth of their size.

**Duplication.** Every point seven times leaves instance norm's output as it is
({duplication|7 times|instance norm}, rounding), where batch norm in training moves by
{duplication|7 times|batch norm, training}, in the other scans of the batch too
({duplication|7 times, the other scans|batch norm, training}). Points that are there one to seven
times at random move it by {duplication|1 to 7 times at random|instance norm}: small, but no
longer nothing. Weights of 1/multiplicity (`point_weights`) make any duplication exact
({duplication|1 to 7 times at random|1/multiplicity}).

**Thinning.** Where every point is as likely to go as any other, the statistics stay those of a
random sample, and what is left is sampling error. With N points of which n stay, the mean is off
by a share of the deviation whose square is (1/n - 1/N) N / (N - 1), the deviation by (kurtosis -
1) / 4 of that: a half of 2,000 points moves the output by {closed form|measured|random half},
predicted {closed form|predicted|random half}. With 11,000 points a random tenth moves it by
{thinning|random tenth|instance norm}.

**Where it ends.** At unevenness, not at numbers. A quarter of the points moves the output by
{unevenness|power 0|instance norm} if drawn evenly, by {unevenness|power 1|instance norm} if drawn
in proportion to their range, by {unevenness|power 2|instance norm} with its square. Thinning near
surfaces to the density of those 20 m away moves it by {thinning|thinned by range|instance norm},
since the statistics are then those of other places. Batch norm, which shares its statistics with
three scans that stay as they are, moves less ({thinning|thinned by range|batch norm, training}).
Losing three beams of four is at the edge ({thinning|every 4th beam|instance norm}): beams look at
different heights.

**Row weights.** With a weight of 1 over the number of neighbours within 2 m every place counts
once, however densely it was measured. That takes thinning by range from
{thinning|thinned by range|instance norm} to {thinning|thinned by range|1/neighbours in 2 m}. It
has a price: points that stand alone weigh most, and they are the first to go in a random
thinning. A random tenth moves the weighted output by {thinning|random tenth|1/neighbours in 2 m},
where the plain one moves by {thinning|random tenth|instance norm}. A smaller radius makes that
worse ({thinning|random tenth|1/neighbours in 0.5 m}).

**Voxels** merge duplicates before any norm sees them: seven times every point then changes
nothing under batch norm either ({voxels|7 times|batch norm, training}), so such a test says
nothing about a norm. And a random thinning of points is no even thinning of voxels, since those
of many points survive: a random tenth moves instance norm by {voxels|random tenth|instance norm}.
Weighting each voxel by its points gives the statistics of the points back
({voxels|random tenth|points of each voxel}).

**In a network** the norm is the smaller part. Half of the points gone, MinkUNet's logits move by
{logits|random half|instance norm} with instance norm and random weights, by
{logits|random half|no norm} without any: convolutions miss the voxels that are gone. Trained on
streets as they are, a small MinkUNet with instance norm reaches an mIoU of
{trained|mIoU|instance norm} and loses {trained|lost: random half|instance norm} to a random half,
{trained|lost: thinned by range|instance norm} to thinning by range; with batch norm it reaches
{trained|mIoU|batch norm, training} and loses
{trained|lost: thinned by range|batch norm, training}. With weights of 1/neighbours in each of its
norms it reaches {trained|mIoU|1/neighbours in 2 m} and loses
{trained|lost: thinned by range|1/neighbours in 2 m}.

Two traps. Batch norm in evaluation is exactly invariant to duplication too: its statistics are
fixed. The control is batch norm in training, with one scan of the batch changed. And a scan cut
at its median range, {thinning|nearer half alone|instance norm}, is no thinning at all: half of
the scene is gone.
""",
    advice=(
        "Count on instance norm where scans differ in number of points alone. Give it "
        "`point_weights` of 1/multiplicity where points may be there twice, and of a voxel's "
        "number of points where it stands over voxels; weigh by 1/neighbours only where sensors "
        "differ in how density falls with range, and train with thinned scans for the rest: no "
        "norm makes up for voxels that a convolution misses."
    ),
    draw=draw,
)
