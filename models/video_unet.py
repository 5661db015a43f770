"""A U-Net for clips, with any norm in each of its stages; given a time, one for diffusion.

Clips are float (B, C, T, H, W); the output has one vector for each position. Height and width are
halved from level to level, and the number of frames is kept, as in Video Diffusion Models (Ho et
al., 2022); there is no attention.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geonorm.models.norm import MakeNorm, Norm, norm_act, resolve
from geonorm.models.video_resnet import Padding, check_clips, check_padding_mode

LONGEST_PERIOD = 10_000.0  # of a time embedding's waves, as in Vaswani et al. (2017)


def time_waves(time: Tensor, channels: int) -> Tensor:
    """Return cosines and sines of times at periods from 2π to 2π·10,000 (Vaswani et al., 2017).

    Args:
        time: (B,), such as the steps of a diffusion schedule from 0 to 999.
        channels: an even number of waves.

    Shape:
        (B,) -> float32 (B, channels), the cosines first
    """
    exponents = torch.arange(channels // 2, device=time.device) / (channels // 2)
    angles = time.float()[:, None] * (-math.log(LONGEST_PERIOD) * exponents).exp()
    return torch.cat([angles.cos(), angles.sin()], 1)


class TimedBlock(nn.Module):
    """Two 3×3×3 convolutions with norms, a scale and a shift by time, and a shortcut.

    The time acts behind the first norm (Dhariwal and Nichol, 2021): what it adds to all positions
    of a channel in front of an instance norm, that norm takes out again.

    Args:
        inputs: channels of its input.
        outputs: channels of its output.
        stride: along height and width.
        make_norm: builds a norm for a number of channels.
        embedding: width of the time embedding; None for no time.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, make_norm: MakeNorm, embedding: int | None
    ) -> None:
        super().__init__()
        steps = (1, stride, stride)
        # Biases, for the stages that have no norm.
        self.conv1 = nn.Conv3d(inputs, outputs, 3, steps, 1)
        self.norm1 = make_norm(outputs, place="first")
        self.time = None if embedding is None else nn.Linear(embedding, 2 * outputs)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, 1, 1)
        self.norm2 = make_norm(outputs, activation="relu")
        kept = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if kept else nn.Conv3d(inputs, outputs, 1, steps)

    def forward(self, x: Tensor, embedded: Tensor | None = None) -> Tensor:
        """Return relu(branch(x) + shortcut(x))."""
        out = self.norm1(self.conv1(x))
        if self.time is not None and embedded is not None:
            by_time = self.time(embedded)[:, :, None, None, None]
            scale, shift = by_time.to(out.dtype).chunk(2, 1)
            out = out * (1 + scale) + shift
        result: Tensor = norm_act(self.norm2, self.conv2(F.relu(out)), self.shortcut(x))
        return result


class VideoUNet(nn.Module):
    """A U-Net for clips: encoders, a bottleneck, decoders with skips, a 1×1×1 output.

    Args:
        in_channels: of the clips.
        out_channels: of the output; as many as of the clips where it is None.
        norm: a name ("instance", "batch", "none", "group", …, see docs/norms.md), a callable taking
            the number of channels, or a mapping from stage to either: "encoder", "bottleneck",
            "decoder", or one of "encoder1", "decoder1", … in order of use, with "default" for the
            rest of these. A norm behind the last convolution stands there only if the mapping
            names "output": an instance norm in that place gives all clips the same mean and
            deviation.
        widths: channels of the encoders and, last, of the bottleneck; each level has half the
            height and width of the one before.
        time_embedding: width of the embedding of the time that `forward` is given; None for a
            network that takes no time.
        padding_mode: what convolutions see beyond the edge of a clip: "zeros", or "replicate", the
            nearest position.

    Shape:
        (B, in_channels, T, H, W) float and a time (B,) -> (B, out_channels, T, H, W); any T, H and
        W: decoders repeat positions to the size of their skip.

    Raises:
        ValueError: for fewer than two widths, an odd or too small time_embedding, an unknown norm,
            stage or padding_mode; on call, for clips or a time of another shape, a time where the
            network takes none, or none where it takes one.
        TypeError: for any other kind of norm; on call, for clips that are not floating point.

    Example:
        >>> net = VideoUNet(norm={"default": "none", "encoder": "instance"}, widths=(8, 16))
        >>> net(torch.randn(2, 3, 4, 16, 16), torch.tensor([10, 900])).shape
        torch.Size([2, 3, 4, 16, 16])

    Sources: U-Net, Ronneberger, Fischer and Brox, 2015; Denoising Diffusion Probabilistic Models,
    Ho, Jain and Abbeel, 2020.
    """

    def __init__(
        self, in_channels: int = 3, out_channels: int | None = None, norm: Norm = "instance",
        widths: Sequence[int] = (32, 64, 128), *, time_embedding: int | None = 128,
        padding_mode: Padding = "zeros",
    ) -> None:  # fmt: skip
        super().__init__()
        _check(widths, time_embedding)
        check_padding_mode(padding_mode)
        self.in_channels = in_channels
        self.embedding = time_embedding
        levels = len(widths) - 1
        stages = {"bottleneck": "bottleneck", "output": "output"}
        for number in range(1, levels + 1):
            stages |= {f"encoder{number}": "encoder", f"decoder{number}": "decoder"}

        def maker(stage: str) -> MakeNorm:
            return partial(resolve, norm, stage, stages=stages)

        if time_embedding is not None:
            self.time = nn.Sequential(
                nn.Linear(time_embedding, time_embedding), nn.SiLU(),
                nn.Linear(time_embedding, time_embedding), nn.SiLU(),
            )  # fmt: skip
        names = [*(f"encoder{n}" for n in range(1, levels + 1)), "bottleneck"]
        self.down = nn.ModuleList(
            TimedBlock(wide_in, wide_out, 1 if level == 0 else 2, maker(names[level]),
                       time_embedding)
            for level, (wide_in, wide_out) in enumerate(pairwise((in_channels, *widths)))
        )  # fmt: skip
        self.up = nn.ModuleList(
            TimedBlock(below + beside, beside, 1, maker(f"decoder{n}"), time_embedding)
            for n, (below, beside) in enumerate(pairwise(reversed(widths)), 1)
        )
        out_channels = in_channels if out_channels is None else out_channels
        self.final = nn.Conv3d(widths[0], out_channels, 1)
        last = isinstance(norm, Mapping) and "output" in norm
        self.output_norm = maker("output")(out_channels) if last else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv3d) and any(module.padding):
                module.padding_mode = padding_mode
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """Return one vector for each position of the clips.

        Args:
            x: clips.
            time: of each clip, (B,), such as its step in a diffusion schedule.
        """
        self._check_input(x, time)
        embedded = None
        if time is not None and self.embedding is not None:
            waves = time_waves(time, self.embedding)
            embedded = self.time(waves.to(self.final.weight.dtype))
        skips: list[Tensor] = []
        for block in self.down:
            x = block(x, embedded)
            skips.append(x)
        skips.pop()
        for block in self.up:
            skip = skips.pop()
            x = F.interpolate(x, skip.shape[2:], mode="nearest")
            x = block(torch.cat([x, skip], 1), embedded)
        result: Tensor = self.output_norm(self.final(x))
        return result

    def _check_input(self, x: Tensor, time: Tensor | None) -> None:
        check_clips(x, self.in_channels)
        if (time is None) != (self.embedding is None):
            raise ValueError(
                "the network takes a time (B,) with each batch; got none. Build it with "
                "time_embedding=None to do without" if time is None else
                "the network was built with time_embedding=None and takes no time; got one"
            )  # fmt: skip
        if time is not None and time.shape != x.shape[:1]:
            raise ValueError(
                f"time must be ({len(x)},), one for each clip; got {tuple(time.shape)}. One time "
                f"for all needs time.expand({len(x)})"
            )


def _check(widths: Sequence[int], time_embedding: int | None) -> None:
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(
            f"widths must be two or more numbers of channels, the bottleneck's last; "
            f"got {tuple(widths)}"
        )
    if time_embedding is not None and (time_embedding < 2 or time_embedding % 2):
        raise ValueError(
            f"time_embedding must be an even number, 2 or more, or None; got {time_embedding}"
        )
