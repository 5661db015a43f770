#!/usr/bin/env python
"""Check that instance norm is invariant where it claims to be, and that others are not.

  python tools/verify_invariance.py                     on built-in scans and videos
  python tools/verify_invariance.py --data scan.bin     on a SemanticKITTI scan of your own
  python tools/verify_invariance.py --video film.mp4    on a video of your own
  python tools/verify_invariance.py --norm batch        batch norm in our place: must fail

Prints a table of how far each norm's output moves under each change of the input, and exits with 1
where a norm that must stay moves, where a control that must move stays, or where a level has none.
"""

import sys
from pathlib import Path
from typing import Literal

from training.threads import share_cores


def scans_of(data: Path | None) -> list:
    """Return scans that differ: streets seen by two sensors, or a scan and two parts of it."""
    from geonorm.datasets.scan import Scan
    from geonorm.datasets.semantickitti import read_points
    from geonorm.datasets.streets import SyntheticStreets

    if data is None:
        return [SyntheticStreets(num_scans=2, seed=7, sensor=name)[i]
                for i, name in enumerate(("roof32", "mast64"))]  # fmt: skip
    raw = read_points(data)
    parts = {"whole": raw[:, 0] > -1e9, "front": raw[:, 0] > 0, "low": raw[:, 2] < -1}
    return [Scan.from_raw(raw[m, :3], raw[m, 3], None, f"{data} ({part})")
            for part, m in parts.items()]  # fmt: skip


def verify(
    data: Path | None = None,
    video: Path | None = None,
    norm: Literal["instance", "batch"] = "instance",
    json: Path | None = None,
    figure: Path | None = None,
) -> int:
    """Measure every level and return the exit status.

    Args:
        data: a scan to use, SemanticKITTI's .bin (float32 x, y, z, intensity); built-in scans by
            default.
        video: a video to use, any file that PyAV decodes; built-in videos by default.
        norm: what stands in our place: "batch" shows that the tool can fail.
        json: where to write the rows as JSON.
        figure: where to draw the rows, a PNG.
    """
    from invariance.points import point_rows
    from invariance.table import as_json, as_text, draw, uncontrolled
    from invariance.video import video_rows

    tables = [point_rows(scans_of(data), norm), video_rows(video, norm)]
    print("\n\n".join(map(as_text, tables)))
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


if __name__ == "__main__":
    share_cores()
    from jsonargparse import auto_cli

    sys.exit(auto_cli(verify, description=__doc__))
