"""Check that instance norm is invariant where it claims to be, and that others are not.

Prints a table of how far each norm's output moves under each change of the input, and exits with 1
where a norm that must stay moves, where a control that must move stays, or where a level has none.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from geonorm.training.noise import silence
from geonorm.training.threads import share_cores

if TYPE_CHECKING:
    from geonorm.datasets import Scan
    from geonorm.training.invariance.table import Row


def scans_of(data: Path | None) -> list["Scan"]:
    """Return scans that differ: streets seen by two sensors, or a scan and two parts of it."""
    from geonorm.datasets.scan import Scan
    from geonorm.datasets.scan_io import read_bin

    if data is None:
        from geonorm.datasets.synthetic.streets import SyntheticStreets

        return [SyntheticStreets(num_scans=2, seed=7, sensor=name)[i]
                for i, name in enumerate(("roof32", "mast64"))]  # fmt: skip
    raw = read_bin(data)
    parts = {"whole": raw[:, 0] > -1e9, "front": raw[:, 0] > 0, "low": raw[:, 2] < -1}
    return [Scan.from_raw(raw[m, :3], raw[m, 3], None, f"{data} ({part})")
            for part, m in parts.items()]  # fmt: skip


def check_device(device: str) -> None:
    """Refuse a device on which nothing can run.

    Raises:
        ValueError: there is no such device, or MinkowskiEngine is not built for it.
    """
    if device == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        raise ValueError(
            f"--device {device} needs a GPU; torch {torch.__version__} sees none (nvidia-smi tells "
            "whether the driver does). Use --device cpu"
        )
    import MinkowskiEngine as ME

    if not ME.is_cuda_available():
        raise ValueError(
            f"--device {device} needs a MinkowskiEngine that is built for CUDA; this one is built "
            "for the CPU alone. Run geonorm install-minkowski --cuda, or use --device cpu"
        )


def measured(
    plain: bool, data: Path | None, video: Path | None, norm: str, device: str
) -> list[list["Row"]]:
    """Return the table of the point levels and that of the video levels."""
    from geonorm.training.invariance.points import point_rows
    from geonorm.training.invariance.video import clips_of, video_rows

    if plain:
        from geonorm.training.invariance.plain import clips, street

        scans, video_clips = [street(seed, 2000) for seed in (7, 8)], clips(0, 3, 8, 48)[0]
    else:
        scans, video_clips = scans_of(data), clips_of(video)
    return [point_rows(scans, norm, device), video_rows(video_clips, norm, device)]


def verify(
    data: Path | None = None,
    video: Path | None = None,
    norm: Literal["instance", "batch"] = "instance",
    device: Literal["cpu", "cuda"] = "cpu",
    plain: bool = False,
    json: Path | None = None,
    figure: Path | None = None,
) -> int:
    """Measure every level and return the exit status.

    Args:
        data: a scan to use, SemanticKITTI's .bin (float32 x, y, z, intensity); built-in scans by
            default.
        video: a video to use, any file that PyAV decodes; built-in videos by default.
        norm: what stands in our place: "batch" shows that the check can fail.
        device: where the norms and networks run.
        plain: instead of the built-in scans and videos draw plainer ones, which need neither
            Open3D nor PyAV.
        json: where to write the rows as JSON.
        figure: where to draw the rows, a PNG.
    """
    from geonorm.training.invariance.table import as_json, as_text, draw, uncontrolled

    if plain and (data or video):
        raise ValueError(f"--plain draws scans and clips; it takes no file, got {data or video}")
    check_device(device)
    tables = measured(plain, data, video, norm, device)
    print("\n\n".join([f"on {device}", *map(as_text, tables)]))
    rows = [row for table in tables for row in table]
    breaches = [f"{row.level}, {row.pattern}: {b}" for row in rows for b in row.breaches]
    breaches += [f"{level}: no control" for level in uncontrolled(rows)]
    if json is not None:
        json.write_text(as_json(rows))
    if figure is not None:
        draw(rows, figure)
    for breach in breaches:
        print(f"BREACH {breach}", file=sys.stderr)
    print(f"{len(rows)} rows, {len(breaches)} breaches")
    return 1 if breaches else 0


def main(arguments: Sequence[str]) -> int | str:
    """Run the command line; return the exit status, or what was wrong with the input."""
    share_cores()
    silence()
    from jsonargparse import auto_cli

    try:
        status: int = auto_cli(verify, args=list(arguments), description=__doc__)
    except ValueError as error:
        return f"geonorm verify: {error}"
    return status
