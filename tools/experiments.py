#!/usr/bin/env python
"""Train every norm briefly and judge it under every shift; rows go to docs/experiments.csv.

  python tools/experiments.py --list true         the cells, and which are done
  python tools/experiments.py --minutes 60        run cells, begin none after an hour
  python tools/experiments.py --only norm=instance,data=streets
  python tools/experiments.py --table true        write docs/experiments.md and which_norm.md

What is done is never done again, and several processes may run side by side.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def experiments(
    list: bool = False,
    only: str = "",
    minutes: float | None = None,
    table: bool = False,
    csv: Path = ROOT / "docs" / "experiments.csv",
) -> int:
    """Run the cells that are not done yet.

    Args:
        list: show the cells in their order, and run none.
        only: conditions that cells must meet, such as norm=instance,seed=0.
        minutes: begin no cell after so many.
        table: write the tables of the rows, and the page which_norm.md with its figure, beside
            them, and run nothing.
        csv: file of the rows.
    """
    import torch
    from grid.actions import Actions
    from grid.cells import chosen, grid
    from grid.rows import read
    from grid.run import run
    from grid.streets import Streets

    from geonorm.files import user_cache, written_whole

    if table:
        from grid import table as tables
        from grid import which

        rows = read(csv)
        figure = csv.parent / "figures" / "which_norm.png"
        figure.parent.mkdir(exist_ok=True)
        which.draw(rows, figure)
        pages = {csv.with_suffix(".md"): tables.page, csv.with_name("which_norm.md"): which.page}
        for path, page in pages.items():
            with written_whole(path) as aside:
                aside.write_text(page(rows), encoding="utf-8")
        print(f"wrote {figure}, {', '.join(map(str, pages))}")
        return 0
    torch.set_num_threads(1)  # several processes side by side do more
    cells = chosen(grid(), only.split(",") if only else [])
    if list:
        done = {row.cell for row in read(csv)}
        print(*(f"{'done' if cell in done else '    '} {cell.title}" for cell in cells), sep="\n")
        return 0
    left = run({"streets": Streets(), "actions": Actions()}, cells, csv,
               user_cache() / "experiments", minutes)  # fmt: skip
    print(f"{len(cells) - left} of {len(cells)} cells are done")
    return int(left > 0 and minutes is None)


def main() -> int:
    from jsonargparse import auto_cli

    from geonorm.training.threads import share_cores

    share_cores()
    result: int = auto_cli(experiments)
    return result


if __name__ == "__main__":
    sys.exit(main())
