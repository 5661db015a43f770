"""Contrast and brightness: what is left of them behind instance norm, and behind a network."""

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from math import log
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from geonorm.models import resnet3d
from geonorm.norms.batch_norm import BatchNorm
from geonorm.norms.group_norm import GroupNorm
from geonorm.norms.instance_norm import InstanceNorm
from geonorm.norms.no_norm import NoNorm
from geonorm.studies.clips import drawn_clips, film_clips
from geonorm.studies.outcome import Outcome
from geonorm.studies.probes import explained
from geonorm.studies.study import Part, Quantity, Setting, Study, Test

FRAMES, SIDE = 200, 48
FILM_FRAMES = 96
PROBED = 600
CLIPS = 200
CONTRAST, SPREAD = 0.15, 0.7  # median deviation, and the deviation of its logarithm
BRIGHTNESS = 0.2  # deviation of the mean around the middle grey
MEAN_VARIANCE = 0.06  # of these frames: 0.15² exp(2 · 0.7²)
EPS = 1e-5
EPSILONS = (1e-7, 1e-5, 1e-3, 1e-2, 1e-1, 1.0)
READ = 0.01  # the smallest relative difference of contrasts that a reader sees
WIDTHS = (3, 16, 32, 64)
NORMS = ("none", "batch", "instance", "group")
Padding = Literal["replicate", "zeros"]
EDGES: dict[str, Padding] = {"edges repeated": "replicate", "zero padding": "zeros"}
CAMERAS = ("linear", "8 bits")
SIZES = (32, 64, 128)


class Sample(NamedTuple):
    """Frames of random contrast and brightness.

    Args:
        frames: (N, 3, H, W); the camera's full scale is 1.
        contrast: (N,), the logarithm of each frame's deviation.
        brightness: (N,), its mean.
    """

    frames: Tensor
    contrast: Tensor
    brightness: Tensor


def relit(frames: Tensor) -> Sample:
    """Bring frames to one contrast, channel by channel, then give each a random one and a light.

    Shape:
        (N, 3, ...): frames or clips.
    """
    frames = frames.double()
    places = tuple(range(2, frames.ndim))
    deviation, mean = torch.std_mean(frames, places, correction=0, keepdim=True)
    contrast = log(CONTRAST) + SPREAD * torch.randn(len(frames), dtype=torch.float64)
    brightness = 0.5 + BRIGHTNESS * torch.randn(len(frames), dtype=torch.float64)
    plain = (frames - mean) / deviation
    each = (-1, *[1] * (frames.ndim - 1))
    lit = plain * contrast.exp().view(each) + brightness.view(each)
    return Sample(lit, contrast, brightness)


def drawn(count: int, setting: Setting, size: int = SIDE) -> Sample:
    """Return frames of built-in actions in random light."""
    return relit(drawn_clips(count, 1, size, seed=300 + setting.seed)[0][:, :, 0])


def photographed(frames: Tensor) -> Tensor:
    """Return frames as a camera of 8 bits records them: clipped to [0, 1] and rounded."""
    return (frames.clamp(0, 1) * 255).round() / 255


def norm(name: str, channels: int, setting: Setting, eps: float = EPS) -> nn.Module:
    """Return a norm by its name; the mutation makes instance norm's eps the frames' variance."""
    if name == "none":
        return NoNorm(channels)
    if name == "batch":
        return BatchNorm(channels, affine=False)
    if name == "group":
        return GroupNorm(channels, affine=False, num_groups=1 if channels == 3 else 8)
    return InstanceNorm(channels, MEAN_VARIANCE if setting.mutated else eps, affine=False)


def behind_one(column: str, sample: Sample, setting: Setting) -> Mapping[str, float]:
    """Measure what one norm leaves of contrast and brightness, in float32."""
    from scipy.stats import pearsonr, spearmanr

    out = norm(column, 3, setting)(sample.frames.float()).double()
    contrast = out.flatten(1).std(1, correction=0).log()
    brightness = out.mean((1, 2, 3))
    given = torch.stack([sample.contrast, sample.brightness])
    # Brightness in deviations of the whole batch, so that a norm's scale does not count.
    scale = sample.frames.std() / out.std()
    read = contrast + READ * torch.randn_like(contrast)
    slope = float(torch.linalg.lstsq((given[0] - given[0].mean())[:, None],
                                     (contrast - contrast.mean())[:, None]).solution)  # fmt: skip
    return {
        "contrast: share of its spread": float(contrast.std() / given[0].std()),
        "contrast: slope": slope,
        "contrast: correlation": pearsonr(given[0], contrast).statistic,
        "contrast: rank correlation": spearmanr(given[0], contrast).statistic,
        "contrast: rank correlation, read to 1%": abs(spearmanr(given[0], read).statistic),
        "brightness: share of its spread": float(scale * brightness.std() / given[1].std()),
        "brightness: correlation": abs(pearsonr(given[1], brightness).statistic)
    }  # fmt: skip


def behind_a_norm(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure one norm on drawn frames."""
    return behind_one(column, drawn(FRAMES, setting), setting)


def on_films(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure one norm on frames of the user's films."""
    films = setting.recordings.videos[:3]
    sample = relit(film_clips(films, 1, SIDE, FILM_FRAMES // len(films))[:, :, 0])
    return behind_one(column, sample, setting)


def shares(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure, in float64, the share of the spread of log contrast that is left for each eps."""
    sample = drawn(FRAMES, setting)
    deviation = sample.contrast.exp()
    predicted, measured = {}, {}
    for eps in EPSILONS:
        left = (deviation / (deviation**2 + eps).sqrt()).log()
        predicted[f"eps {eps:g}"] = float(left.std() / sample.contrast.std())
        out = InstanceNorm(3, eps, affine=False)(sample.frames)
        left = out.flatten(1).std(1, correction=0).log()
        measured[f"eps {eps:g}"] = float(left.std() / sample.contrast.std())
    if column == "ratio":
        return {row: measured[row] / predicted[row] for row in measured}
    return measured if column == "instance" else predicted


def network(name: str, padding: Padding, setting: Setting) -> nn.Module:
    """Return three strided convolutions of random weights, each with a norm and a ReLU; pooled."""
    inner, _, given = name.partition(", input ")
    layers: list[nn.Module] = [norm(given, 3, setting)] if given else []
    for inputs, outputs in pairwise(WIDTHS):
        layers += [
            nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False, padding_mode=padding),
            norm(inner, outputs, setting), nn.ReLU(),
        ]  # fmt: skip
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def read_behind(model: nn.Module, frames: Tensor, sample: Sample) -> tuple[float, float]:
    """Return R² of contrast and of brightness, read from the model's features."""
    inputs = (frames - frames.mean()) / frames.std()  # by the data set, as training pipelines do
    with torch.no_grad():
        features = model.train()(inputs.float())
    return explained(features, sample.contrast), explained(features, sample.brightness)


def behind_a_network(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure probes behind three layers, for both paddings and both cameras."""
    sample = drawn(PROBED, setting)
    values: dict[str, float] = {}
    for camera in CAMERAS:
        frames = sample.frames if camera == "linear" else photographed(sample.frames)
        for edges, padding in EDGES.items():
            torch.manual_seed(setting.seed)  # the same weights for every padding and camera
            found = read_behind(network(column, padding, setting), frames, sample)
            values |= {f"{what}, {edges}, {camera}": value
                       for what, value in zip(("contrast", "brightness"), found, strict=True)}
    return values


def by_size(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure probes of brightness behind three layers with instance norm, by the frame's side."""
    sample = drawn(PROBED, setting, int(column.removesuffix(" pixels")))
    values = {}
    for edges, padding in EDGES.items():
        torch.manual_seed(setting.seed)
        model = network("instance", padding, setting)
        values[f"brightness, {edges}"] = read_behind(model, sample.frames, sample)[1]
    return values


def behind_a_resnet(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure probes behind the first three stages of this library's 3D-ResNet of 10 layers."""
    clips = drawn_clips(CLIPS, 8, 64, seed=300 + setting.seed)[0]
    sample = relit(clips)
    name, _, edges = column.partition(", ")
    model = resnet3d(10, norm=partial(norm, name, setting=setting), width=16,
                     padding_mode=EDGES[edges])  # fmt: skip
    model.layer4, model.fc = nn.Identity(), nn.Identity()  # one position would be left there
    found = read_behind(model, sample.frames, sample)
    return dict(zip(("contrast", "brightness"), found, strict=True))


def _network(what: str, edges: str, camera: str, column: str = "instance") -> Quantity:
    return Quantity("network", f"{what}, {edges}, {camera}", column)


def _frames(row: str, column: str = "instance") -> Quantity:
    return Quantity("frames", row, column)


SHARE = {what: f"{what}: share of its spread" for what in ("contrast", "brightness")}
READ_TO = "contrast: rank correlation, read to 1%"
UNREAD = "cannot be read behind three layers of instance norm"
TESTS = (
    *(Test(f"instance norm leaves under 1% of the spread of {what}", _frames(row), below=0.01)
      for what, row in SHARE.items()),
    *(Test(f"batch norm leaves the spread of {what}", _frames(row, "batch"), above=0.9)
      for what, row in SHARE.items()),
    *(Test(f"the closed form tells to 1% how much of it is left at an eps of {eps:g}",
           Quantity("eps", f"eps {eps:g}", "ratio"), above=0.99, below=1.01) for eps in (EPS, 0.1)),
    Test("as worded: behind instance norm contrast is almost uncorrelated with what it was",
         _frames("contrast: rank correlation"), below=0.3),
    Test("as worded: behind instance norm brightness is almost uncorrelated with what it was",
         _frames("brightness: correlation"), below=0.3),
    Test("contrast is almost uncorrelated for a reader that sees differences of 1%",
         _frames(READ_TO), below=0.3),
    Test("the same reader finds the contrast behind batch norm", _frames(READ_TO, "batch"),
         above=0.9),
    *(Test(f"{what} {UNREAD} with {edges}" + (", of 8 bits" if camera == "8 bits" else ""),
           _network(what, edges, camera), below=0.1)
      for what, edges, camera in (
          ("brightness", "edges repeated", "linear"), ("contrast", "edges repeated", "linear"),
          ("brightness", "edges repeated", "8 bits"), ("contrast", "edges repeated", "8 bits"),
          ("brightness", "zero padding", "linear"), ("contrast", "zero padding", "linear"))),
    Test("with an instance norm on the input, brightness cannot be read in spite of zero padding",
         _network("brightness", "zero padding", "linear", "instance, input instance"), below=0.1),
    *(Test(f"{what} is read better behind batch than behind instance norms, by half of all",
           _network(what, "edges repeated", "linear", "batch"), above=0.5,
           minus=_network(what, "edges repeated", "linear"))
      for what in ("brightness", "contrast")),
)  # fmt: skip

PARTS = (
    Part("frames", "Contrast and brightness of 200 frames behind one norm, against those before it",
         NORMS, behind_a_norm),
    Part("eps", "Share of the spread of log contrast that instance norm leaves, by its eps",
         ("instance", "closed form", "ratio"), shares, variants=("broken",)),
    Part("network", "R² of a linear reader of the mean of each channel behind three layers of "
         "random weights, on held-out frames",
         (*NORMS, "instance, input instance"), behind_a_network, long=True),
    Part("size", "The same for the brightness behind instance norm, by the side of the frame",
         tuple(f"{side} pixels" for side in SIZES), by_size, long=True, variants=()),
    Part("resnet", "The same behind three stages of `geonorm.models.resnet3d(10)`, 200 clips",
         tuple(f"{name}, {edges}" for name in ("batch", "instance") for edges in EDGES),
         behind_a_resnet, long=True, variants=()),
    Part("films", "As the first table, on frames of three films",
         NORMS, on_films, needs="videos", variants=()),
)  # fmt: skip

NOTES = """
**What was done.** Frames of the built-in actions are brought to one contrast and one mean, colour
by colour, so that content says nothing of light. Each then gets a contrast of its own (its standard
deviation: log-normal, mostly between 0.04 and 0.6 of the camera's full scale) and a brightness (its
mean, 0.5 ± 0.2). The question is how much of either can be told from what comes out of a norm.

**One norm.** Behind batch norm all of it is left: {frames|contrast: share of its spread|batch} of
the spread of log contrast, {frames|brightness: share of its spread|batch} of that of brightness.
Behind instance norm it is {frames|contrast: share of its spread|instance} and
{frames|brightness: share of its spread|instance}.

**Correlation is blind to size.** The output's deviation is s/√(s² + eps) for an input's s, which
still rises with s: by almost nothing, but always. So the rank correlation of contrast before and
behind instance norm is {frames|contrast: rank correlation|instance}, and "almost uncorrelated" is
wrong as worded; what is gone is the *size*. For a reader that tells contrasts apart from 1% on the
rank correlation is {frames|contrast: rank correlation, read to 1%|instance}. The same trap is in
every probe that standardizes its features: give them noise of an absolute size first. Eps counts in
squared units of the norm's input: at an eps as large as the variance, {eps|eps 0.1|instance} of the
spread of log contrast is left, so keep faint inputs well above its root.

**A network lets light back in at its edges.** Behind three convolutions with instance norms nothing
of the brightness is found where the convolutions repeat the edge pixels (R² of
{network|brightness, edges repeated, linear|instance}). With zero padding, the default everywhere,
it is {network|brightness, zero padding, linear|instance}: the offset of a bright frame ends at the
border, where the zeros begin, so it is not constant and no norm takes it out. Larger frames do not
help ({size|brightness, zero padding|32 pixels} at 32 pixels,
{size|brightness, zero padding|128 pixels} at 128), and it is the same in this library's 3D-ResNets
({resnet|brightness|instance, zero padding} against {resnet|brightness|instance, edges repeated}).
Batch norm shows all of it either way ({network|brightness, zero padding, linear|batch}), group norm
most of it ({network|brightness, zero padding, linear|group}).

**A camera is not linear.** What 8 bits clip and round is neither gain nor offset: even with
repeated edges R² of contrast becomes {network|contrast, edges repeated, 8 bits|instance}, that of
brightness {network|brightness, edges repeated, 8 bits|instance}.
"""


def draw(outcome: Outcome, figure: Any) -> None:
    """Draw what one norm leaves of contrast, by eps, and what is read behind three layers."""
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.4))
    for column, style in (("closed form", "-"), ("instance", "o")):
        values = [outcome.mean("eps", f"eps {eps:g}", column) for eps in EPSILONS]
        left.loglog(EPSILONS, values, style, label=column, color="C0" if style == "-" else "C1")
    left.axhline(outcome.mean("frames", "contrast: share of its spread", "batch"), color="0.5",
                 linestyle="--", label="batch norm")  # fmt: skip
    left.axvline(EPS, color="0.8", zorder=0)
    left.text(EPS * 1.2, 2e-5, "default")
    left.set(xlabel="eps (full scale² of the camera)", ylabel="share that is left",
             title="Spread of log contrast\nbehind one instance norm")  # fmt: skip
    left.legend()
    columns = ("batch", "group", "instance", "instance, input instance")
    for number, (what, edges) in enumerate(
        (what, edges) for what in ("contrast", "brightness") for edges in EDGES
    ):
        found = [outcome.interval(_network(what, edges, "linear", column)) for column in columns]
        places = [place + (number - 1.5) * 0.2 for place in range(len(columns))]
        right.bar(
            places, [max(each.mean, 0) for each in found], 0.19, label=f"{what}, {edges}",
            yerr=[[min(max(each.mean, 0), each.mean - each.low) for each in found],
                  [each.high - each.mean for each in found]],
            color=f"C{number // 2}", alpha=1 if number % 2 else 0.45,
        )  # fmt: skip
    names = ["batch", "group", "instance", "instance,\nalso on input"]
    right.set_xticks(range(len(columns)), names)
    right.set(ylabel="R² on held-out frames", ylim=(0, 1.3), yticks=[0, 0.25, 0.5, 0.75, 1],
              title="Read behind three layers\n(0: nothing is found)")  # fmt: skip
    right.legend(ncols=2, loc="upper center", fontsize="small")


STUDY = Study(
    name="contrast",
    title="Contrast and brightness",
    claim="Behind an instance norm a sample's output is almost uncorrelated with the contrast and "
    "the brightness that the sample had; behind a batch norm both remain",
    sources=("Ulyanov, Vedaldi and Lempitsky (2016)", "Huang and Belongie (2017)"),
    tests=TESTS,
    parts=PARTS,
    mutation="eps is raised to the mean variance of the frames.",
    notes=NOTES,
    advice="Where light must not get through, put an instance norm (`affine=False`) on the "
    "network's input: it makes zero the mean of every frame, so the zeros around it are harmless "
    "({network|brightness, zero padding, linear|instance, input instance}). Or build the "
    "network with `padding_mode='replicate'`. To see whether light got through, read it "
    "from the features by a linear probe behind a noise floor, as this study does.",
    draw=draw,
)
