"""Checks docs/claims.md, the list of the numbers that README and docs state, against the committed results.

    python -m benchmarks.check_claims

It fails when a ratio on a page is not the recorded one, when a page states measured numbers and is not in the list, and
when the command of a claim does not exist any more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CLAIMS = ROOT / "docs" / "claims.md"
RESULTS = ROOT / "benchmarks" / "results.json"
MEASURED = re.compile(r"\d\.\d+ ± \d|^\|.*\d\.\d.*\|.*\d\.\d", re.MULTILINE)
"""A spread, or a table row with two decimal numbers: what a page that measured something has."""


def rows(text: str, heading: str) -> Iterator[list[str]]:
    """Cells of the table under a heading, without its head."""
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    for line in lines[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def stale_ratios(text: str, results: list[dict[str, Any]]) -> Iterator[str]:
    """Ratios on pages that the results do not hold."""
    for page, shown, name, processor in rows(text, "Ratios"):
        whole = re.compile(rf"{re.escape(processor)}\b")  # model 1 is not model 17
        recorded = [row for row in results if row["name"] == name and whole.search(row["processor"])]
        digits = len(shown.partition(".")[2])
        if len(recorded) != 1:
            yield f"{page}: {len(recorded)} results are called {name!r} on {processor}"
        elif f"{recorded[0]['ratio']:.{digits}f}" != shown:
            yield f"{page}: {name} on {processor}: {shown} is claimed, {recorded[0]['ratio']:.{digits}f} recorded"
        elif shown not in (ROOT / page).read_text():
            yield f"{page}: does not say {shown} ({name})"


def unlisted_pages(text: str) -> Iterator[str]:
    """Pages with measurements that the list does not name, and pages that it names and that are gone."""
    listed = {page for page, *_ in rows(text, "Pages")}
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in (page for page in pages if page != CLAIMS):
        name = page.relative_to(ROOT).as_posix()
        if MEASURED.search(page.read_text()) and name not in listed:
            yield f"{name}: states measurements and is not in docs/claims.md"
    yield from (f"{page}: is listed and does not exist" for page in sorted(listed) if not (ROOT / page).exists())


def missing_commands(text: str) -> Iterator[str]:
    """Scripts and configurations that the commands of the list name and that are gone."""
    for page, command, *_ in rows(text, "Pages"):
        files = [f"benchmarks/{name.replace('.', '/')}" for name in re.findall(r"-m benchmarks\.([\w.]+)", command)]
        files += [name.removesuffix(".yaml") for name in re.findall(r"tune_configs/[\w/]+\.yaml", command)]
        for name in files:
            if not any((ROOT / f"{name}{ending}").exists() for ending in (".py", ".yaml", "/__main__.py")):
                yield f"{page}: {name} does not exist"


def main() -> None:
    """Print what is stale; ends with 1 if there is something."""
    text, results = CLAIMS.read_text(), json.loads(RESULTS.read_text())
    problems = [*stale_ratios(text, results), *unlisted_pages(text), *missing_commands(text)]
    print("\n".join(problems) or "every claim holds")
    if problems:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
