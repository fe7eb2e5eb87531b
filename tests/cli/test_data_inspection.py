"""`v2a data inspect`, `list` and `checks` as a user calls them."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.cli.command import v2a_here
from v2a_ray.data.collection.rolling import EpisodeCollector
from v2a_ray.data.formats.arrays import arrays_of
from v2a_ray.data.table.folder import write_table
from v2a_ray.domains import parse_domain


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """Two files of one recording, one with scaled rewards and an action out of bounds, and an episode table."""
    folder = tmp_path_factory.mktemp("data")
    table = EpisodeCollector(parse_domain("hopper"), "random").collect(range(20))
    bad = arrays_of(table)
    bad["actions"] = bad["actions"].copy()
    bad["actions"][3, 1] = 1.5
    for name, arrays in {"hopper_stock_random": arrays_of(table), "<script>hopper_stock_random": bad}.items():
        with h5py.File(folder / f"{name}.hdf5", "w") as file:
            for key, values in arrays.items():
                file[key] = values
    write_table(table, folder / "tables" / "hopper", robot="hopper")
    (folder / "broken.hdf5").write_bytes(b"no")
    return folder


def test_inspect(folder, tmp_path: Path) -> None:
    good, bad = "hopper_stock_random.hdf5", "<script>hopper_stock_random.hdf5"
    shown = v2a_here("data", "inspect", good, cwd=folder)
    assert shown.returncode == 0 and "all checks passed" in shown.stdout, shown.stderr
    assert "hopper/stock@d4rl" in shown.stdout

    page, report = tmp_path / "page.html", tmp_path / "report.json"
    shown = v2a_here("data", "inspect", good, bad, "-o", str(page), "--report", str(report), cwd=folder)
    assert shown.returncode == 2 and "action_bounds" in shown.stdout, shown.stderr
    content = json.loads(report.read_text())
    assert content["counts"] == {"error": 1, "warning": 1, "info": 0}
    assert [each["check"] for each in content["findings"]] == ["action_bounds", "duplicate"]
    html = page.read_text()
    assert "&lt;script&gt;hopper" in html and "<script" not in html
    assert "http" not in html.replace("http-equiv", "") and html.count("data:image/png;base64,") == 4

    picture, report = tmp_path / "picture.png", tmp_path / "report.md"
    graded = ("--check", "action_bounds=warning", "--check", "duplicate=ignore")
    shown = v2a_here("data", "inspect", good, bad, "-o", str(picture), "--report", str(report), *graded, cwd=folder)
    assert shown.returncode == 0, shown.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "| warning | action_bounds | &lt;script>hopper" in report.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--check", "fine=error"), "no check named 'fine'"),
        (("-o", "a.pdf"), "says neither a picture nor a page"),
    ],
)
def test_wrong_options(arguments, message, folder) -> None:
    failed = v2a_here("data", "inspect", "hopper_stock_random.hdf5", *arguments, cwd=folder)
    assert failed.returncode == 2 and message in failed.stderr


def test_list(folder) -> None:
    listed = json.loads(v2a_here("data", "list", ".", "--json", cwd=folder).stdout)
    assert [each["name"] for each in listed] == [
        "<script>hopper_stock_random.hdf5",
        "broken.hdf5",
        "hopper_stock_random.hdf5",
        "tables/hopper",
    ]
    _, broken, file, table = listed
    assert broken["unreadable"] and "no known format" in broken["problems"]
    for each, name in ((file, "d4rl"), (table, "parquet")):
        assert (each["format"], each["num_episodes"], each["domain"]) == (name, 20, "hopper/stock@d4rl")
        assert np.isclose(each["mean_return"], listed[0]["mean_return"])
    assert "broken.hdf5" in v2a_here("data", "list", cwd=folder).stdout
    failed = v2a_here("data", "list", "absent", cwd=folder)
    assert failed.returncode == 2 and "is no folder" in failed.stderr


def test_checks(tmp_path: Path) -> None:
    shown = v2a_here("data", "checks", cwd=tmp_path).stdout
    assert "time_limit_as_terminal" in shown and "warning" in shown
