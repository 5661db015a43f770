#!/usr/bin/env python
"""Run verify_invariance's point rows on a device, on scans that need no Open3D.

  python tools/gpu/verify.py --device cuda --json rows.json
  python tools/gpu/verify.py --norm batch        batch norm in our place: must fail

Exits with 1 where a norm that must stay moves, or a control that must move stays.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training.threads import share_cores

share_cores()

import torch  # noqa: E402

from gpu.samples import street  # noqa: E402


def main() -> int:
    """Measure, print the table and return the exit status."""
    from invariance.points import point_rows
    from invariance.table import as_json, as_text, uncontrolled

    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--norm", choices=("instance", "batch"), default="instance")
    parser.add_argument("--points", type=int, default=4000, help="points of a scan")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()  # fmt: skip
    scans = [street(seed, arguments.points) for seed in (7, 8)]
    rows = point_rows(scans, arguments.norm, arguments.device)
    print(f"on {arguments.device}\n{as_text(rows)}")
    if arguments.json is not None:
        arguments.json.write_text(as_json(rows))
    breaches = [f"{row.level}, {row.pattern}: {b}" for row in rows for b in row.breaches]
    breaches += [f"{level}: no control" for level in uncontrolled(rows)]
    print("\n".join([*(f"BREACH {each}" for each in breaches),
                     f"{len(rows)} rows, {len(breaches)} breaches"]))  # fmt: skip
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
