"""`v2a report`: a page that nobody's names can break, and tables for texts."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.cli.command import v2a_here
from tests.cli.finished_folders import write_result, write_sweep_folder
from v2a_ray.experiments.finished import read_records
from v2a_ray.report.comparison import compare
from v2a_ray.report.results_page import page

A = [[51.9, 51.6, 69.6, 31.0, 15.1], [48.0, 42.0, 64.2, 40.7, 46.7]]
B = [[37.7, 49.1, 58.7, 54.0, 35.8], [39.6, 55.4, 38.3, 45.9, 40.4]]
HOSTILE = '<script>alert(1)</script> & "x" $a_b$'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scores = {
        HOSTILE: {"near": A[0], "far": A[1]},
        "base": {"near": B[0], "far": B[1]},
        "partial": {"near": [80.0]},
    }
    return write_sweep_folder(tmp_path / "sweep", scores, failed=("loss <b>nan</b>",))


class Page(HTMLParser):
    """Tags with their attributes, and ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_stands_alone_and_runs_no_other_script(folder: Path) -> None:
    done = v2a_here("report", "sweep", "--baseline", "base", "-o", "page.html", cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    text = (folder.parent / "page.html").read_text()
    found = Page(text)
    assert len(found.all("script")) == 1 and "<b>nan" not in text
    assert len(text) < 5e6
    addresses = [value for _, attributes in found.tags for name, value in attributes.items() if name in ("src", "href")]
    assert all(value and value.startswith("#") for value in addresses), "nothing is loaded"
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    # Every picture says what it is, every field has a label, every table its header.
    pictures = [attributes for attributes in found.all("svg") if attributes.get("aria-hidden") != "true"]
    assert len(pictures) == 3 and all(each["role"] == "img" and each["aria-label"] for each in pictures)
    assert all("scope" in each for each in found.all("th"))
    # Each method can be hidden in every figure that it is in.
    groups = [each["id"] or "" for each in found.all("g") if (each.get("id") or "").startswith("m0-")]
    assert {name.split("-")[1] for name in groups} == {"bar", "interval", "profile", "curve"}
    again = v2a_here("report", "sweep", "-o", "page.html", cwd=folder.parent)
    assert again.returncode == 0, "a page of ours is replaced"


def test_what_is_not_comparable_is_not_compared(folder: Path) -> None:
    header, *rows = compare(read_records(folder), "base").table()
    assert header == ["method", "near", "far", "IQM [95 %]", "P(better than base) [95 %]"]
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["partial"] == ["80.0 (n=1)", "–", "–", "–"]
    assert by_name["base"][-1] == "–" and by_name[HOSTILE][-1].startswith("0.")
    comparison = compare(read_records(folder))
    assert comparison.failures() == [(HOSTILE, "near", "90", "failed: loss <b>nan</b>")]
    # The target's data are one artifact of all, and were there before.
    assert comparison.stages() == [("data", 0, 1, 2.5), ("policy", 21, 0, 84.0)]


def test_tables_for_texts(folder: Path) -> None:
    text = v2a_here("report", "sweep", "-f", "markdown", cwd=folder.parent).stdout
    assert "&lt;script" in text and "<script" not in text
    latex = v2a_here("report", "sweep", "-f", "latex", cwd=folder.parent).stdout
    assert r"\$a\_b\$" in latex and latex.count(r"\\") == 4
    rows = list(csv.DictReader(io.StringIO(v2a_here("report", "sweep", "-f", "csv", cwd=folder.parent).stdout)))
    assert len(rows) == 22 and {row["status"].split(":")[0] for row in rows} == {"finished", "failed"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep"], "a page needs a file"),
        (["sweep", "-f", "pdf"], "no format 'pdf'"),
        (["sweep", "-o", "p.html", "--baseline", "nobody"], "no method 'nobody'"),
        (["nowhere", "-o", "p.html"], "not a finished run or a sweep"),
        (["sweep", "-o", "sweep/sweep.yaml"], "v2a_ray did not write it"),
    ],
)
def test_what_cannot_be_reported_is_said(folder: Path, arguments: list[str], message: str) -> None:
    done = v2a_here("report", *arguments, cwd=folder.parent)
    assert done.returncode == 2 and message in " ".join(done.stderr.split())


def test_the_response_to_a_setting_is_shown_where_it_varies(tmp_path: Path) -> None:
    for seed in range(3):
        for value, score in ((0.25, 30.0), (0.5, 50.0)):
            labels = {"mix": "near", "method": "igdf", "seed": str(seed)}
            write_result(tmp_path / f"{value}-{seed}", labels, score + seed, filter={"keep_fraction": value})
    records = [record for folder in sorted(tmp_path.iterdir()) for record in read_records(folder)]
    found = Page(page(compare(records), "x", []))
    lines = [each["id"] for each in found.all("g") if "-response-" in (each.get("id") or "")]
    assert lines == ["m0-response-keep_fraction-band", "m0-response-keep_fraction"]
    single = [record for record in records if record.folder.name.startswith("0.5")]
    assert "Response to" not in page(compare(single), "x", [])


@pytest.mark.skipif(shutil.which("node") is None, reason="no JavaScript engine")
def test_the_pages_script_is_javascript(folder: Path, tmp_path: Path) -> None:
    text = page(compare(read_records(folder)), "x", [])
    script = tmp_path / "page.js"
    script.write_text(text.rsplit("<script>", 1)[1].split("</script>")[0])
    assert subprocess.run(["node", "--check", str(script)], capture_output=True).returncode == 0


def test_sources_that_differ_are_told_by_what_they_set(tmp_path: Path) -> None:
    for seed, behavior in enumerate(("medium", "expert")):
        folder = tmp_path / behavior
        write_result(folder, {"mix": "a", "method": "iql_mixed", "seed": str(seed)}, 50.0)
        result = json.loads((folder / "result.json").read_text())
        result["config"]["sources"][0]["behavior"] = behavior
        (folder / "result.json").write_text(json.dumps(result))
    done = v2a_here("report", "medium", "expert", "-o", "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cells = re.findall(r"<td>(domain: hopper/stock[^<]*)</td>", (tmp_path / "page.html").read_text())
    assert len(cells) == 2 and "behavior: expert" in cells[1] and "None" not in "".join(cells)
