#!/usr/bin/env python
"""Write the pages and figures of the studies, and their summary, from docs/studies/*.json.

The verdicts in these files are judged anew from what was measured.

  geonorm study all --json docs/studies     measures everything and writes the JSON files
  python tools/draw_studies.py              writes docs/studies/*.md and docs/figures/studies
"""

import json
import sys
from pathlib import Path

from geonorm.studies import STUDIES, study_named
from geonorm.studies.report import as_page, as_summary, draw, from_json, write_json

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- summary: tools/draw_studies.py -->", "<!-- end of summary -->"


def main() -> None:
    """Write everything anew."""
    outcomes = []
    for name in STUDIES:
        path = DOCS / "studies" / f"{name}.json"
        if not path.exists():
            print(f"{path} is missing: geonorm study {name} --json {path}", file=sys.stderr)
            continue
        outcome = from_json(study_named(name), json.loads(path.read_text("utf-8")))
        write_json(outcome, path)  # its verdicts, in the words of now
        draw(outcome, DOCS / "figures" / "studies" / f"{name}.png")
        path.with_suffix(".md").write_text(as_page(outcome), "utf-8")
        outcomes.append(outcome)
    index = DOCS / "studies" / "index.md"
    before, _, rest = index.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    names = "\n".join(outcome.study.name for outcome in outcomes)
    contents = f"```{{toctree}}\n:maxdepth: 1\n:hidden:\n\n{names}\n```"
    written = "\n\n".join([BEGIN, as_summary(outcomes), contents, END])
    index.write_text(f"{before}{written}{after}", "utf-8")


if __name__ == "__main__":
    main()
