"""Style: what exchanging instance norm's statistics gives a picture and a scan, and takes."""

from collections.abc import Mapping
from math import log2
from typing import Any

import torch
from torch import Tensor, nn

from geonorm.functional import instance_norm
from geonorm.inputs import Rows
from geonorm.studies.clips import drawn_clips, film_clips
from geonorm.studies.outcome import Outcome
from geonorm.studies.study import Part, Quantity, Setting, Study, Test
from geonorm.studies.style_scans import (
    INTENSITY,
    OTHER,
    OWN,
    apart,
    intensities,
    scans,
    segmented,
    styled,
)
from geonorm.studies.style_transfer import (
    CONTENTS,
    SIDE,
    Transfer,
    contents,
    exchange,
    four_styles,
    one_style_losses,
    style_distance,
    style_of,
    textures,
    trained_transfer,
)
from geonorm.style import StyleStatistics, mix_styles, style_statistics
from geonorm.training.invariance.table import change as relative_change

AS_IT_IS, GIVEN, ONE = "as it is", "other's style", "one style"
HALF, QUARTERS = (0.5, 0.5), (0.25,) * 4


def norm_of(column: str, setting: Setting) -> str:
    """Return the norm of a column; the mutation puts batch norm in instance norm's place."""
    return "batch" if setting.mutated else column


def exact(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure how far the output's statistics are from the style's, in a batch of four."""
    norm = norm_of("instance", setting)
    own: Tensor | Rows
    other: Tensor | Rows
    if column == "scans, intensity":
        own, other = (intensities(scans(sensor, 4, 100 + setting.seed))
                      for sensor in (OWN, INTENSITY))  # fmt: skip
    else:
        clips = drawn_clips(8, 4, SIDE, seed=100 + setting.seed)[0]
        if column == "clips, features":
            clips = _random_features(clips)
        own, other = clips[:4], clips[4:]
    found, wanted = (style_statistics(each) for each in (exchange(own, other, norm), other))
    return {"statistics off the style's": relative_change(
        torch.cat([wanted.mean, wanted.std]), torch.cat([found.mean, found.std]))}  # fmt: skip


@torch.no_grad()
def _random_features(clips: Tensor) -> Tensor:
    """Return features of a random convolution, (B, 16, T, `SIDE`, `SIDE`)."""
    layer = nn.Conv3d(3, 16, (1, 3, 3), padding=(0, 1, 1), padding_mode="replicate")
    out: Tensor = layer.to(clips)(clips).relu()
    return out


def by_variance(styles: list[StyleStatistics], weights: tuple[float, ...]) -> StyleStatistics:
    """Return a mixture of styles in mean and in variance, in place of deviation."""
    squares = [StyleStatistics(style.mean, style.std.square()) for style in styles]
    mixed = mix_styles(squares, weights)
    return StyleStatistics(mixed.mean, mixed.std.sqrt())


def mixtures(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure how far a mixture's features are from the mixture of the features."""
    mix = by_variance if column == "variances" or setting.mutated else mix_styles
    features = _random_features(drawn_clips(10, 4, SIDE, seed=200 + setting.seed)[0])
    content = features[:2]

    def off(weights: tuple[float, ...], content: Tensor, styles: Tensor) -> tuple[float, Tensor]:
        of_each = [style_statistics(styles[2 * i : 2 * i + 2]) for i in range(len(weights))]
        parts = [w * exchange(content, style, "instance")
                 for w, style in zip(weights, of_each, strict=True)]  # fmt: skip
        line = torch.stack(parts).sum(0)
        return relative_change(line, exchange(content, mix(of_each, weights), "instance")), line

    values = {"two styles": off(HALF, content, features[2:6])[0],
              "four styles": off(QUARTERS, content, features[2:])[0]}  # fmt: skip
    if column == "variances":
        measured, line = off(HALF, content.double(), features[2:6].double())
        a, b = (style_statistics(features[i : i + 2].double()) for i in (2, 4))
        # Normalized features have mean 0 and mean square var / (var + eps).
        square = style_statistics(content.double()).std.square()
        bend = by_variance([a, b], HALF).std - mix_styles([a, b], HALF).std
        size = line[0, 0].numel()
        total = (bend.square() * (1 - 1e-5 / square)).sum() * size
        values["predicted"] = float((total / line.square().sum()).sqrt())
        values["measured / predicted"] = measured / values["predicted"]
    return values


def intensity(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure how far intensities of one sensor are from another's, before and after."""
    own, other = (scans(sensor, 8, 300 + setting.seed) for sensor in (OWN, column))
    return _intensities_apart(intensities(own), intensities(other), norm_of("instance", setting))


def _intensities_apart(own: Rows, other: Rows, norm: str) -> dict[str, float]:
    """Return mean distances between the intensities of scans that belong together."""
    after = styled(own, other, norm)

    def mean(values: Tensor) -> float:
        pairs = [apart(values[own.batch_index == i], other.features[other.batch_index == i])
                 for i in range(own.num_instances)]  # fmt: skip
        return sum(pairs) / len(pairs)

    values = {"apart before": mean(own.features), "apart after": mean(after)}
    return values | {"share left": values["apart after"] / values["apart before"]}


def real_intensity(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure the same, the user's scan in the style of built-in ones."""
    scan = setting.recordings.read_scan()
    other = scans(column, 8, 300)
    return _intensities_apart(intensities([scan] * 8), intensities(other), "instance")


def one_style(column: str, setting: Setting) -> Mapping[str, float]:
    """Train a network for one style with each norm."""
    ours = one_style_losses(setting.seed, norm_of("instance", setting), column)
    batch = one_style_losses(setting.seed, "batch", column)
    values = {"style loss, instance norm": ours[1], "style loss, batch norm": batch[1],
              "lead (log2 of their ratio)": log2(batch[1] / ours[1])}  # fmt: skip
    for number, name in ((0, "whole loss"), (2, "whole loss on new contents")):
        values |= {f"{name}, instance norm": ours[number], f"{name}, batch norm": batch[number]}
    return values


def transferred(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure what a trained transfer makes of contents and textures that it has not seen."""
    norm = norm_of(column, setting)
    broken = setting.variant == "broken" and norm == "instance"
    transfer = trained_transfer(setting.seed, norm, broken)
    torch.manual_seed(7000 + setting.seed)
    return _qualities(transfer, contents(64, unseen=True), textures(64))


@torch.no_grad()
def _qualities(transfer: Transfer, pictures: Tensor, styles: Tensor) -> dict[str, float]:
    """Return how much of the style, the content and the style's layout outputs have.

    They are made in batches of eight, as in training.
    """
    encoder = transfer.encoder
    made, off = [], []
    for few, looks in zip(pictures.split(8), styles.split(8), strict=True):
        a, b = (style_of(encoder, each) for each in (looks, looks.roll(1, 0)))
        ends = [transfer(few, style) for style in (a, b)]
        half_way = transfer(few, mix_styles([a, b], HALF))
        off.append(relative_change((ends[0] + ends[1]) / 2, half_way))
        made.append(ends[0])
    out = torch.cat(made)
    layout = [instance_norm(encoder(each)[-1]).flatten(1) for each in (out, pictures, styles)]

    def alike(a: Tensor, b: Tensor) -> float:
        return float(torch.cosine_similarity(a, b).mean())

    left = style_distance(encoder, out, styles) / style_distance(encoder, pictures, styles)
    return {
        "style's difference left": float(left),
        "likeness to the content": alike(layout[0], layout[1]),
        "likeness to another content": alike(layout[0], layout[1].roll(3, 0)),
        "layout leaked from the style": alike(layout[0], layout[2]) - alike(layout[1], layout[2]),
        "half-way picture off the straight line": sum(off) / len(off),
    }


def filmed(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure the same of films: the statistics are those of a whole clip, over T·H·W."""
    transfer = trained_transfer(0, "instance")
    encoder = transfer.encoder
    clips = film_clips(setting.recordings.videos, 8, SIDE)
    styles = four_styles()[[i % 4 for i in range(len(clips))]]
    values: dict[str, list[float]] = {
        "style's difference left": [], "likeness to the content": [],
        "frame to frame, content": [], "frame to frame, output": [],
    }  # fmt: skip
    with torch.no_grad():
        for clip, style in zip(clips, styles, strict=True):
            frames = clip.transpose(0, 1)
            features = encoder(frames)[-1].transpose(0, 1)[None]
            wanted = style_of(encoder, style[None])
            if column == "each clip":
                given = exchange(features, wanted, "instance")[0].transpose(0, 1)
            else:
                given = exchange(features[0].transpose(0, 1), wanted, "instance")
            made = transfer.decoder(given)
            left = style_distance(encoder, made, style[None]) / style_distance(
                encoder, frames, style[None])  # fmt: skip
            layouts = [instance_norm(encoder(each)[-1]).flatten(1) for each in (made, frames)]
            values["style's difference left"].append(float(left))
            values["likeness to the content"].append(
                float(torch.cosine_similarity(*layouts).mean()))
            for name, each in (("content", frames), ("output", made)):
                values[f"frame to frame, {name}"].append(relative_change(each[:-1], each[1:]))
    return {name: sum(each) / len(each) for name, each in values.items()}


def segmentation(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure what a network for points makes of another sensor's scans."""
    return segmented(column, setting.seed)


def _of(row: str, column: str = "instance", part: str = "transfer") -> Quantity:
    return Quantity(part, row, column)


LEAD = "lead (log2 of their ratio)"
KEPT, OTHERS = "likeness to the content", "likeness to another content"
ORIGINAL, CONTRAST, STYLE = CONTENTS
TESTS = (
    Test("colours of clips have the statistics of the style, to 1%",
         _of("statistics off the style's", "clips, colours", "exact"), below=0.01),
    Test("so does the intensity of scans",
         _of("statistics off the style's", "scans, intensity", "exact"), below=0.01),
    Test("features lie on the straight line between two styles, to 1e-6",
         _of("two styles", "deviations", "mixtures"), below=1e-6),
    Test("and among four", _of("four styles", "deviations", "mixtures"), below=1e-6),
    Test("variances mixed in place of deviations are off the line by the closed form, to 1%",
         _of("measured / predicted", "variances", "mixtures"), above=0.99, below=1.01),
    Test("half of the difference between two sensors' intensities goes, scan by scan",
         _of("share left", INTENSITY, "intensity"), below=0.5),
    Test("a network for one style has at most half of batch norm's style loss",
         _of(LEAD, ORIGINAL, "one style"), above=1),
    Test("it has less where contents have one contrast beforehand",
         _of(LEAD, CONTRAST, "one style"), above=0),
    Test("but its lead is smaller there", _of(LEAD, ORIGINAL, "one style"), above=0,
         minus=_of(LEAD, CONTRAST, "one style")),
    Test("and smaller still where they have one style beforehand",
         _of(LEAD, CONTRAST, "one style"), above=0, minus=_of(LEAD, STYLE, "one style")),
    Test("a decoded picture has the style: a tenth of the difference is left at most",
         _of("style's difference left"), below=0.1),
    Test("batch norm in its place leaves more of it", _of("style's difference left", "batch"),
         above=0, minus=_of("style's difference left")),
    Test("it keeps its content, compared with another picture's", _of(KEPT), above=0.3,
         minus=_of(OTHERS)),
    Test("it has none of the style's layout", _of("layout leaked from the style"), above=-0.05,
         below=0.05),
    Test("as worded: decoded pictures lie on the straight line too, to 1%",
         _of("half-way picture off the straight line"), below=0.01),
    Test("the other sensor's style in training helps segmentation of its intensities",
         _of(f"mIoU, {INTENSITY}", GIVEN, "segmentation"), above=0,
         minus=_of(f"mIoU, {INTENSITY}", AS_IT_IS, "segmentation")),
    Test("and of its scans", _of(f"mIoU, {OTHER}", GIVEN, "segmentation"), above=0,
         minus=_of(f"mIoU, {OTHER}", AS_IT_IS, "segmentation")),
    Test("and costs less than 0.02 on the own sensor",
         _of(f"mIoU, {OWN}", GIVEN, "segmentation"), above=-0.02,
         minus=_of(f"mIoU, {OWN}", AS_IT_IS, "segmentation")),
)  # fmt: skip

PARTS = (
    Part("exact", "Distance of the output's means and deviations from the style's (relative), "
         "four instances in a batch", ("clips, colours", "clips, features", "scans, intensity"),
         exact),
    Part("mixtures", "Distance of a mixture's features from the mixture of the features "
         "(relative), by what is mixed beside the means", ("deviations", "variances"), mixtures),
    Part("intensity", "Wasserstein distance of a scan's intensities from those of a scan whose "
         "style it is given", (INTENSITY, OTHER), intensity),
    Part("real scan", "The same of a scan of your own in the style of built-in sensors",
         (OWN, OTHER), real_intensity, seeded=False, needs="scan", variants=()),
    Part("one style", "Losses of a network for one style, means over the last 20 of 90 steps, by "
         "what was done to its contents", CONTENTS, one_style, long=True, variants=("mutated",)),
    Part("transfer", "Decoded pictures in the style of textures not seen in training, by the norm "
         "whose statistics are exchanged", ("instance", "batch"), transferred, long=True,
         most_seeds=3),
    Part("films", "Clips of your own in four styles, by what the statistics are of",
         ("each clip", "each frame"), filmed, long=True, seeded=False, needs="videos", variants=()),
    Part("segmentation", "mIoU of a small network for points by what was done to the intensities "
         "of the scans it learned from", (AS_IT_IS, GIVEN, ONE), segmentation, long=True,
         variants=()),
)  # fmt: skip
NOTES = """
**What is exact.** Given another instance's means and deviations behind an instance norm, a clip's
colours have that instance's statistics ({exact|statistics off the style's|clips, colours} off), and
so does a scan's intensity ({exact|statistics off the style's|scans, intensity}). Features behind a
ReLU do less ({exact|statistics off the style's|clips, features}): a channel that is all but dead in
the content has a variance of about eps, and what is not there cannot be stretched. A mixture of
means and deviations leads along a straight line in features
({mixtures|two styles|deviations} off it between two styles, {mixtures|four styles|deviations} among
four); variances mixed in their place leave it by {mixtures|two styles|variances}, as a closed form
predicts. That the line is straight holds for any normalization of the content and says nothing for
instance norm.

**Pictures.** An encoder and a decoder, trained here in a minute (no weights of VGG are needed),
take drawn shapes as contents and textures as styles. Of the difference between content and style
{transfer|style's difference left|instance} is left in the decoded picture, with batch norm in
instance norm's place {transfer|style's difference left|batch}; its normalized features keep a
likeness of {transfer|likeness to the content|instance} to the content's
({transfer|likeness to another content|instance} to another's), and none of the style's layout
leaks ({transfer|layout leaked from the style|instance}). Behind the decoder the straight line is
gone: the half-way picture is {transfer|half-way picture off the straight line|instance} off the
mean of both ends.

**One style, Huang and Belongie's own comparison.** With contents as they are, batch norm's style
loss after 90 steps is {one style|style loss, batch norm|original}, instance norm's
{one style|style loss, instance norm|original}; with one contrast beforehand
{one style|style loss, batch norm|contrast normalized} and
{one style|style loss, instance norm|contrast normalized}, with one style beforehand
{one style|style loss, batch norm|style normalized} and
{one style|style loss, instance norm|style normalized}. So the lead is more than twofold, shrinks
where the contents' contrast is taken out, and shrinks further where their style is: as Huang and
Belongie found, what instance norm does there is to take out the contents' style.

**Scans.** Given the intensity style of another sensor, scan by scan, a scan's intensities come from
{intensity|apart before|other intensity} to {intensity|apart after|other intensity} of the other's
(Wasserstein distance). As an augmentation in training it raises a small network's mIoU on the other
sensor's intensities from {segmentation|mIoU, other intensity|as it is} to
{segmentation|mIoU, other intensity|other's style}, with an interval of the gain that still holds 0.
To give **all** scans one style, in training and in testing, gains more
({segmentation|mIoU, other intensity|one style}), on the own sensor too: that is an instance norm of
the input.

**What was known before.** Networks, steps, rates and the tests were settled on seeds 0 to 2,
which an earlier version of this page shows. After that the network for points became the one of the
study of federated learning, and pictures are judged on shapes that no network has seen. Then seeds
50 and following, which nobody had looked at, were run once. The target of the content loss is
AdaIN's own output, which does not know the content's light and may favour instance norm; the tests
of one style therefore judge the style loss alone.
"""


@torch.no_grad()
def _shown() -> tuple[Tensor, list[Tensor], list[list[Tensor]]]:
    """Return a content, a strip between two styles and a square among four, made by seed 0."""
    with torch.enable_grad():
        transfer = trained_transfer(0, "instance")
    content = drawn_clips(256, 1, SIDE, seed=600)[0][SHOWN][:, 0]
    styles = [style_of(transfer.encoder, each[None]) for each in four_styles()]

    def made(*weights: float) -> Tensor:
        mixed = mix_styles(styles, weights)
        out: Tensor = transfer(content[None], mixed)[0].clamp(0, 1).permute(1, 2, 0)
        return out

    strip = [made(1 - a, a, 0, 0) for a in STRIP]
    square = [[made((1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y) for x in SQUARE]
              for y in SQUARE]  # fmt: skip
    return content.permute(1, 2, 0), strip, square


SHOWN = 14
STRIP, SQUARE = (0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 1 / 3, 2 / 3, 1.0)


def draw(outcome: Outcome, figure: Any) -> None:
    """Draw the losses for one style, and pictures of the network of seed 0, trained anew."""
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
    for number, norm in enumerate(("batch norm", "instance norm")):
        found = [outcome.interval(_of(f"style loss, {norm}", kind, "one style"))
                 for kind in CONTENTS]  # fmt: skip
        places = [place + (number - 0.5) * 0.36 for place in range(len(CONTENTS))]
        half = [(each.high - each.low) / 2 for each in found]
        left.bar(places, [each.mean for each in found], 0.34, yerr=half, label=norm,
                 color=("C1", "C0")[number])  # fmt: skip
    left.set_xticks(range(len(CONTENTS)), [kind.replace(" ", "\n") for kind in CONTENTS])
    left.set_ylim(0, None)
    left.set_title("Style loss, network for one style", fontsize=10)
    left.legend(frameon=False, fontsize=8)
    _pictures(right)


def _pictures(axes: Any) -> None:
    """Draw a content and a strip from style A to B; below, the four styles and a square."""
    content, strip, square = _shown()
    a, b, c, d = four_styles().permute(0, 2, 3, 1)
    blank = torch.ones_like(content)
    rows = [[content, *strip], [blank] * 6, [a, *square[0], b], [blank, *square[1], blank],
            [blank, *square[2], blank], [c, *square[3], d]]  # fmt: skip
    cell, whole = SIDE + 3, torch.ones(len(rows) * (SIDE + 3), 6 * (SIDE + 3), 3)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            whole[y * cell : y * cell + SIDE, x * cell : x * cell + SIDE] = picture
    # The empty row need only be as high as the names of the strip.
    whole = torch.cat([whole[: cell + 10], whole[2 * cell :]])
    axes.imshow(whole.numpy(), interpolation="nearest")
    axes.set_axis_off()
    axes.set_title("A content from style A to B, and among A, B, C and D", fontsize=10)
    names = ["content", *(f"{share:.0%} B" for share in STRIP)]
    below = [(name, number * cell, SIDE) for number, name in enumerate(names)]
    top, foot = cell + 10 + SIDE, len(whole) - 3
    corners = [("A", 0, top), ("B", 5 * cell, top), ("C", 0, foot), ("D", 5 * cell, foot)]
    for name, x, y in below + corners:
        axes.text(x + SIDE / 2, y + 1, name, fontsize=7, ha="center", va="top")


STUDY = Study(
    name="style",
    title="Instance norm's statistics as style",
    claim="Means and deviations by channel, which instance norm takes out, are a style: exchanged "
    "they give a picture or a scan another's look and keep its content, mixed they lead along a "
    "straight line, and networks for one style learn it better with instance norm than with batch "
    "norm",
    sources=("Huang and Belongie (2017)", "Ulyanov, Vedaldi and Lempitsky (2017)",
             "Gatys, Ecker and Bethge (2016)", "Dumoulin, Shlens and Kudlur (2017)"),
    tests=TESTS,
    parts=PARTS,
    mutation="batch norm in the place of instance norm; variances are mixed, not deviations.",
    notes=NOTES,
    advice="Exchange means and deviations where you want another look and the same content, and "
    "mix deviations, not variances. For scans of several sensors normalize the intensity of each "
    "scan before you think of style as an augmentation: it is simpler and gained more here.",
    draw=draw,
)  # fmt: skip
