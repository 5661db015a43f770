"""Fairness: brightness that is tied to a group, as a spurious cue and as the signal itself."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from geonorm.norms.batch_norm import BatchNorm
from geonorm.norms.instance_norm import InstanceNorm
from geonorm.norms.no_norm import NoNorm
from geonorm.studies.clips import drawn_clips
from geonorm.studies.outcome import Outcome
from geonorm.studies.point_nets import small_minkunet, voxel_iou, voxel_loss
from geonorm.studies.probes import accuracy as readable
from geonorm.studies.study import Part, Quantity, Setting, Study, Test
from geonorm.studies.training import cross_entropy, fit

if TYPE_CHECKING:
    from geonorm.datasets.scan import Scan
    from geonorm.datasets.voxelize import ScanBatch

MOTIONS = ("move left", "move right")
FRAMES, SIDE, WIDTH = 6, 24, 12
DARK, BRIGHT, JITTER = 0.25, 0.9, 0.15  # exposures, and the deviation of their logarithm
TIED = 0.95  # share of the training clips whose group is that of their label
PHOTONS, READ_NOISE = 2000, 10  # of a full pixel, and the deviation of what reading adds
MEAN, STD = 0.43, 0.22  # that clips are standardized by before a network, as recipes do
UNDER, OVER = 0.1, 0.5  # differences below the one count as fair here, above the other as unfair
RARE, VOXEL = 0.05, 0.4  # share of scans of the dark sensor, and metres

IN, ZERO, SENSOR = "instance", "instance, zero padding", "instance, real sensor"
BLACK = "instance, zero padding, black is 0"  # not standardized
FREE, NONE_FREE = "batch, nothing tied", "none, nothing tied"
INPUT, BATCH_INPUT = "instance, intensity normalized", "batch, intensity normalized"
OFFSET = 0.3  # of the intensity, of the dark sensor, where it has one


class Clips(NamedTuple):
    """Clips (N, 3, T, H, W), their labels (N,) and their groups (N,), 0 dark and 1 bright."""

    clips: Tensor
    labels: Tensor
    groups: Tensor


def exposed(clips: Tensor, groups: Tensor, generator: torch.Generator) -> Tensor:
    """Return clips in the light of their group, each with a little gain of its own."""
    own = (JITTER * torch.randn(len(clips), generator=generator)).exp()
    gain = torch.tensor([DARK, BRIGHT])[groups] * own
    return clips * gain.view(-1, 1, 1, 1, 1)


def sensed(clips: Tensor, generator: torch.Generator) -> Tensor:
    """Return clips with photon noise, read noise and 8 bits, as a camera records them."""
    electrons = torch.poisson(clips * PHOTONS, generator=generator)
    electrons += READ_NOISE * torch.randn(clips.shape, generator=generator)
    return (electrons / PHOTONS * 255).round().clamp(0, 255) / 255


@lru_cache(maxsize=4)
def _drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
    return drawn_clips(count, FRAMES, SIDE, seed, MOTIONS)


def tied_clips(count: int, tied: float, column: str, seed: int) -> Clips:
    """Return clips to train on, whose group is that of their label with the probability `tied`."""
    clips, labels = _drawn(count, 3000 + seed)
    generator = torch.Generator().manual_seed(seed)
    same = torch.rand(count, generator=generator) < tied
    groups = torch.where(same, labels, 1 - labels)
    return Clips(_seen(exposed(clips, groups, generator), column, generator), labels, groups)


def balanced_clips(count: int, column: str, seed: int) -> Clips:
    """Return clips to test on, of which each pair of label and group is a quarter."""
    clips, labels = _drawn(count, 4000 + seed)
    generator = torch.Generator().manual_seed(seed)
    groups = torch.arange(count) // len(MOTIONS) % 2  # labels alternate
    return Clips(_seen(exposed(clips, groups, generator), column, generator), labels, groups)


def _seen(clips: Tensor, column: str, generator: torch.Generator) -> Tensor:
    """Return clips as the network of a column is given them."""
    if column == SENSOR:
        clips = sensed(clips, generator)
    return clips if column == BLACK else (clips - MEAN) / STD


class Net(nn.Module):
    """Three convolutions with a norm and a ReLU each, the mean over the clip, and a classifier."""

    def __init__(self, norm: str, padding_mode: Literal["zeros", "replicate"]) -> None:
        super().__init__()
        make = {"none": NoNorm, "batch": BatchNorm, "instance": InstanceNorm}[norm]
        layers: list[nn.Module] = []
        for inputs, outputs, stride in ((3, WIDTH, (1, 2, 2)), (WIDTH, 2 * WIDTH, 2),
                                        (2 * WIDTH, 2 * WIDTH, 1)):  # fmt: skip
            layers += [nn.Conv3d(inputs, outputs, 3, stride, 1, padding_mode=padding_mode),
                       make(outputs), nn.ReLU()]  # fmt: skip
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(2 * WIDTH, len(MOTIONS))

    def features(self, clips: Tensor) -> Tensor:
        """Return what the classifier sees, (B, 24)."""
        means: Tensor = self.layers(clips).mean((2, 3, 4))
        return means

    def forward(self, clips: Tensor) -> Tensor:
        """Return the logits of clips (B, 3, T, H, W)."""
        logits: Tensor = self.head(self.features(clips))
        return logits


def network(column: str, setting: Setting) -> Net:
    """Return the network of a column; the mutation puts batch norm in instance norm's place."""
    norm = column.partition(",")[0]
    if norm == IN and setting.mutated:
        norm = "batch"
    return Net(norm, "zeros" if column in (ZERO, BLACK) else "replicate")


def differences(labels: Tensor, answers: Tensor, groups: Tensor) -> dict[str, float]:
    """Return fairlearn's differences between the groups and the accuracy of the worst cell."""
    from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference

    given = {"y_true": labels.numpy(), "y_pred": answers.numpy(),
             "sensitive_features": groups.numpy()}  # fmt: skip
    right = (answers == labels).float()
    cells = [float(right[(labels == label) & (groups == group)].mean())
             for label in (0, 1) for group in (0, 1)]  # fmt: skip
    return {
        "accuracy": float(right.mean()),
        "demographic parity difference": float(demographic_parity_difference(**given)),
        "equalized odds difference": float(equalized_odds_difference(**given)),
        "accuracy of the worst cell": min(cells),
    }


def untrained(column: str, setting: Setting) -> Mapping[str, float]:
    """Read the group from the features of a network with random weights."""
    seen = balanced_clips(400, column, setting.seed)
    net = network(column, setting).train()  # batch norm by the batch
    with torch.no_grad():
        features = torch.cat([net.features(part) for part in seen.clips.split(40)])
    return {"group read from the features": readable(features, seen.groups)}


def _trained(net: Net, seen: Clips, setting: Setting, steps: int) -> Net:
    generator = torch.Generator().manual_seed(setting.seed)

    def draw() -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(seen.clips), (32,), generator=generator)
        return seen.clips[rows], seen.labels[rows]

    return fit(net, draw, cross_entropy, steps=steps)


def spurious(column: str, setting: Setting) -> Mapping[str, float]:
    """Train where the group mostly is that of the label; test where it is not."""
    tied = 0.5 if column in (FREE, NONE_FREE) else TIED
    seen = tied_clips(1600, tied, column, setting.seed)
    # In 200 steps batch norms learn no motion from frames, not even with nothing tied.
    net = _trained(network(column, setting), seen, setting, 1000)
    unseen = balanced_clips(600, column, setting.seed)
    with torch.no_grad():
        features = net.features(unseen.clips)
        answers = net.head(features).argmax(1)
    return {**differences(unseen.labels, answers, unseen.groups),
            "group read from the features": readable(features, unseen.groups)}  # fmt: skip


def signal(column: str, setting: Setting) -> Mapping[str, float]:
    """Train to tell the exposure itself: equalized odds are undefined, so accuracy alone."""
    seen = tied_clips(1600, 0.5, column, setting.seed)
    net = _trained(network(column, setting), seen._replace(labels=seen.groups), setting, 100)
    unseen = balanced_clips(600, column, setting.seed)
    with torch.no_grad():
        right = net(unseen.clips).argmax(1) == unseen.groups
    return {"accuracy": float(right.float().mean())}


def seen_by(scan: "Scan", dark: bool, gain: float, offset: float) -> "Scan":
    """Return a scan as the dark or the bright sensor sees it.

    Args:
        scan: with intensities.
        dark: which sensor.
        gain: of this scan, on top of the sensor's.
        offset: what the dark sensor adds to every intensity.
    """
    gain *= DARK if dark else BRIGHT
    seen = scan.feature("intensity")[:, 0] * np.float32(gain) + np.float32(offset * dark)
    return replace(scan, intensity=seen)


def normalized(batch: "ScanBatch") -> "ScanBatch":
    """Return a batch whose intensities have mean 0 and deviation 1 in each scan."""
    norm, scan = InstanceNorm(1, affine=False), batch.coordinates[:, 0].long()
    intensity = norm(batch.features[:, 3:].contiguous(), scan)
    return batch._replace(features=torch.cat([batch.features[:, :3], intensity], 1))


def scans(column: str, setting: Setting, offset: float = 0.0) -> Mapping[str, float]:
    """Train a small MinkUNet on streets, of which few are of a dark sensor; test both sensors.

    Args:
        column: the norms inside the network, and whether each scan's intensity is normalized first.
        setting: seed and variant.
        offset: what the dark sensor adds to every intensity beside its gain.
    """
    from geonorm.datasets.synthetic.streets import SyntheticStreets
    from geonorm.datasets.voxelize import ScanBatch, collate_scans

    rng = np.random.default_rng((13, setting.seed))
    classes = len(SyntheticStreets.classes)
    train, unseen = SyntheticStreets(24, 500 + setting.seed), SyntheticStreets(8, 600)
    kept = [train[i] for i in range(len(train))]

    def seen(scans: list["Scan"], dark: list[bool]) -> ScanBatch:
        gains = np.exp(JITTER * rng.standard_normal(len(scans)))
        triples = zip(scans, dark, gains, strict=True)
        batch = collate_scans([seen_by(*triple, offset) for triple in triples], VOXEL)
        return normalized(batch) if column in (INPUT, BATCH_INPUT) else batch

    def draw() -> ScanBatch:
        chosen = rng.choice(len(kept), 2, replace=False)
        return seen([kept[i] for i in chosen], [rng.random() < RARE for _ in chosen])

    net = small_minkunet(4, classes, column.partition(",")[0])
    model = fit(net, draw, voxel_loss, steps=200, rate=5e-3)
    bright, dark = (
        voxel_iou(model, (seen([unseen[i]], [rare]) for i in range(len(unseen))), classes)
        for rare in (False, True)
    )
    return {"mIoU, frequent sensor": bright, "mIoU, rare dark sensor": dark,
            "disparity": bright - dark}  # fmt: skip


def draw(outcome: Outcome, figure: Any) -> None:
    """Draw what each network does to the groups, and the scans of both sensors."""
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.5, 0.8, 1.2))
    columns = outcome.study.part("spurious").columns
    rows = ("equalized odds difference", "accuracy of the worst cell")
    _bars(outcome, left, "spurious", columns, rows)
    left.set(title="group tied to the label in training", xlim=(0, 1.05))
    left.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.4, -0.08), ncols=2)
    _bars(outcome, middle, "signal", outcome.study.part("signal").columns, ("accuracy",))
    middle.axvline(0.5, color="0.5", lw=1, ls=":")
    middle.set(title="brightness is the label", xlim=(0, 1.05), xlabel="accuracy")
    names = outcome.study.part("scans").columns
    _bars(outcome, right, "scans", names, ("mIoU, frequent sensor", "mIoU, rare dark sensor"))
    right.set(title="scans of two sensors")
    right.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.3, -0.08))


def _bars(
    outcome: Outcome, axes: Any, part: str, columns: tuple[str, ...], rows: tuple[str, ...]
) -> None:
    height = 0.8 / len(rows)
    for number, row in enumerate(rows):
        found = [outcome.interval(Quantity(part, row, column)) for column in columns]
        places = [place + height * (number - (len(rows) - 1) / 2) for place in range(len(columns))]
        axes.barh(places, [i.mean for i in found], height * 0.9,
                  label=row.partition(", ")[2] or row, color=f"C{number}",
                  xerr=[(i.high - i.low) / 2 for i in found])
    axes.set_yticks(range(len(columns)), [c.replace(", ", ",\n") for c in columns], fontsize=7)
    axes.invert_yaxis()


_EOD, _WORST = "equalized odds difference", "accuracy of the worst cell"
_READ = "group read from the features"
STUDY = Study(
    name="fairness",
    title="Fairness: brightness tied to a group",
    claim="Instance norm takes brightness, and with it what separates groups by their exposure, "
    "out of a network's features: it makes decisions fair where brightness is a spurious cue, and "
    "costs accuracy where brightness is the signal.",
    sources=("Hardt, Price and Srebro (2016)", "Feldman and others (2015)",
             "Sagawa, Koh, Hashimoto and Liang (2020)"),
    tests=(
        Test("random weights: behind batch norms the group is read from the features",
             Quantity("random weights", _READ, "batch"), above=0.9),
        Test("random weights: behind instance norms with repeated edges it is not",
             Quantity("random weights", _READ, IN), below=0.6),
        Test("random weights: behind instance norms with zero padding it is not",
             Quantity("random weights", _READ, ZERO), below=0.6),
        Test("random weights: nor with zero padding where black is 0",
             Quantity("random weights", _READ, BLACK), below=0.6),
        Test("random weights: nor of a sensor with noise and 8 bits",
             Quantity("random weights", _READ, SENSOR), below=0.6),
        Test("a cue that is tied to the label makes a network of batch norms unfair",
             Quantity("spurious", _EOD, "batch"), above=OVER),
        Test("one of instance norms with repeated edges stays fair",
             Quantity("spurious", _EOD, IN), below=UNDER),
        Test("and is right in nine of ten clips of its worst cell",
             Quantity("spurious", _WORST, IN), above=0.9),
        Test("one of instance norms with zero padding stays fair",
             Quantity("spurious", _EOD, ZERO), below=UNDER),
        Test("zero padding makes it less fair than repeated edges do",
             Quantity("spurious", _EOD, ZERO), above=0.0, minus=Quantity("spurious", _EOD, IN)),
        Test("one of instance norms with zero padding stays fair where black is 0",
             Quantity("spurious", _EOD, BLACK), below=UNDER),
        Test("one of instance norms stays fair behind a sensor with noise and 8 bits",
             Quantity("spurious", _EOD, SENSOR), below=UNDER),
        Test("control: with nothing tied batch norms learn the motion",
             Quantity("spurious", "accuracy", FREE), above=0.8),
        Test("control: with nothing tied batch norms are fair to 0.2",
             Quantity("spurious", _EOD, FREE), below=0.2),
        Test("control: with nothing tied a network without norms learns the motion",
             Quantity("spurious", "accuracy", NONE_FREE), above=0.8),
        Test("control: with nothing tied a network without norms is fair to 0.2",
             Quantity("spurious", _EOD, NONE_FREE), below=0.2),
        Test("where brightness is the label batch norms read it",
             Quantity("signal", "accuracy", "batch"), above=0.9),
        Test("and instance norms with repeated edges are at chance",
             Quantity("signal", "accuracy", IN), below=0.6),
        Test("scans: batch norms serve the rare sensor worse, by 0.03 of mIoU",
             Quantity("scans", "disparity", "batch"), above=0.03),
        Test("scans: instance norms inside a network bring that below 0.03",
             Quantity("scans", "disparity", IN), below=0.03),
        Test("scans: one more of the intensity alone, on the input, brings it below 0.03",
             Quantity("scans", "disparity", INPUT), below=0.03),
        Test("scans: so it does in front of batch norms",
             Quantity("scans", "disparity", BATCH_INPUT), below=0.03),
        Test("scans with an offset: batch norms serve the rare sensor worse, by 0.03 of mIoU",
             Quantity("scans, offset", "disparity", "batch"), above=0.03),
        Test("scans with an offset: instance norms inside a network bring that below 0.03",
             Quantity("scans, offset", "disparity", IN), below=0.03),
        Test("scans with an offset: one more of the intensity alone brings it below 0.03",
             Quantity("scans, offset", "disparity", INPUT), below=0.03),
        Test("scans with an offset: so it does in front of batch norms",
             Quantity("scans, offset", "disparity", BATCH_INPUT), below=0.03),
    ),
    parts=(
        Part("random weights", "Accuracy of a linear reader of the group (chance 0.5) from the "
             "features of networks with random weights", ("none", "batch", IN, ZERO, BLACK, SENSOR),
             untrained),
        Part("spurious", "Networks trained to tell two motions from clips of which 95% are bright "
             "for the one and dark for the other; of the tested clips each pair is a quarter",
             ("none", NONE_FREE, "batch", FREE, IN, ZERO, BLACK, SENSOR), spurious, long=True,
             variants=()),
        Part("signal", "Accuracy where bright or dark is the label (chance 0.5)",
             ("batch", IN, ZERO), signal, long=True, variants=()),
        Part("scans", "mIoU of a small MinkUNet on streets, one scan of 20 in training of a sensor "
             "whose intensity is 0.28 of the other's", ("batch", BATCH_INPUT, IN, INPUT), scans,
             long=True, variants=()),
        Part("scans, offset", f"The same where that sensor adds {OFFSET} to every intensity too",
             ("batch", BATCH_INPUT, IN, INPUT), partial(scans, offset=OFFSET), long=True,
             variants=()),
    ),
    mutation="batch norm (by the batch's statistics while training) in instance norm's place.",
    notes="""
Built-in clips of a shape that moves left or right are exposed at 0.9 (the bright group) or 0.25
(the dark one), with 15% of jitter, and standardized as recipes do. In training the group agrees
with the label in 95% of the clips; of the tested clips each of the four pairs is a quarter, since
otherwise the demographic parity difference has a floor of its own.

**A spurious cue.** A network of batch norms takes it: the equalized odds differ by
{spurious|equalized odds difference|batch} between the groups, and in its worst cell it is right in
{spurious|accuracy of the worst cell|batch} of the clips. With nothing tied it is right in
{spurious|accuracy|batch, nothing tied}: the motion can be learned in this budget, though three
seeds do not show that it always is. With instance norms and repeated edges the difference is
{spurious|equalized odds difference|instance}, the worst cell
{spurious|accuracy of the worst cell|instance}, and a linear reader finds the group in the features
with {spurious|group read from the features|instance} (chance 0.5). Behind a sensor with photon
noise, read noise and 8 bits the difference is
{spurious|equalized odds difference|instance, real sensor}, although the noise of dark clips tells
some of the group to a reader of random features
({random weights|group read from the features|instance, real sensor}).

**Zero padding can let the cue back in**: the difference is
{spurious|equalized odds difference|instance, zero padding} in this budget; whether it is larger
than with repeated edges beyond chance is one of the tests below. A standardized clip has its grey
at 0, so that exposure is an offset too, and the padding, which has none of it, shows how large it
is: with random weights the group is read with
{random weights|group read from the features|instance, zero padding}. Where black is 0 exposure is a
gain and nothing else, zeros stay zeros under it, and both are gone
({random weights|group read from the features|instance, zero padding, black is 0},
{spurious|equalized odds difference|instance, zero padding, black is 0}).

**What was known before.** Steps and tests were settled on seeds 0 to 2, of which an earlier version
of this page was. (A first run of theirs took 200 steps, in which batch norms did not learn the
motion, not even with nothing tied, so that their unfairness said nothing about the norm; at
1,000 steps that control learned.) The paired test of zero padding, the control without a norm, the
normalized intensity in front of batch norms and the offset were added before any of them was run.
Then seeds 50 and following, which nobody had looked at, were run once.

**The signal itself.** Where bright or dark is the label, batch norms reach
{signal|accuracy|batch}, instance norms with repeated edges {signal|accuracy|instance}. With zero
padding they reach {signal|accuracy|instance, zero padding}, by the same leak.

**Scans.** A sparse convolution pads nothing: what is missing around a voxel is missing in all scans
alike. But the first convolution mixes intensity with three coordinates before anything is
normalized, which may take the padding's place. The rare dark sensor gets {scans|disparity|batch}
less mIoU with batch norms, {scans|disparity|batch, intensity normalized} with an instance norm of
the intensity alone in front of them, {scans|disparity|instance} with instance norms inside the
network, and {scans|disparity|instance, intensity normalized} with both. Where that sensor adds an
offset as well, these are {scans, offset|disparity|batch},
{scans, offset|disparity|batch, intensity normalized}, {scans, offset|disparity|instance} and
{scans, offset|disparity|instance, intensity normalized}. With so few seeds the intervals, not these
means, say which of them differ.
""",
    advice="Give a 3D-ResNet of instance norms `padding_mode='replicate'` where brightness must "
    "not count, normalize a scan's intensity on the input, and measure the worst of balanced "
    "cells. Where brightness is the signal, do not normalize it away.",
    draw=draw,
)
