"""The pages of results and of datasets in a browser: no error, filters that work, nothing cut off at any width."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.chromium import CHROMIUM, Page, opened
from tests.cli.command import v2a_here
from tests.cli.finished_folders import write_sweep_folder
from v2a_ray.data.collection.rolling import EpisodeCollector
from v2a_ray.data.table.folder import write_table
from v2a_ray.domains import parse_domain

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no `chromium` on the PATH"),
]
PHONE, DESK = 390, 1280
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CUT_TABLES = """[...document.querySelectorAll('table')].filter(table => {
  const box = table.closest('.wide');
  return !box || (box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX !== 'auto');
}).length"""
SHOWN = """[...document.querySelectorAll('#results tbody tr')]
  .filter(row => !row.hidden).map(row => row.cells[0].textContent)"""


def require_sound(page: Page) -> None:
    """No problem, in either theme and at either width."""
    for theme, paper in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(22, 22, 22)")):
        for width in (DESK, PHONE):
            page.look(width, theme)
            assert page.value(OVERFLOW) <= 0, (theme, width)
            assert page.value(CUT_TABLES) == 0, (theme, width)
            assert page.value("getComputedStyle(document.body).backgroundColor") == paper
    assert page.problems == []


def test_the_page_of_results(tmp_path: Path) -> None:
    scores = {
        "igdf": {"near": [50.0, 52.0, 48.0], "far": [30.0, 35.0, 31.0]},
        "base": {"near": [40.0, 41.0, 44.0], "far": [20.0, 22.0, 21.0]},
        "v2a": {"near": [60.0, 63.0, 61.0], "far": [9.0, 8.0, 7.0]},
    }
    write_sweep_folder(tmp_path / "sweep", scores, failed=("a loss is not finite",))
    done = v2a_here("report", "sweep", "--baseline", "base", "-o", "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with opened(tmp_path / "page.html", tmp_path / "profile") as page:
        require_sound(page)
        page.look(DESK, "light")
        everyone = page.value(SHOWN)
        assert sorted(everyone) == ["base", "igdf", "v2a"]
        page.value("document.querySelector('input[data-method=\"0\"]').click()")
        assert page.value(SHOWN) == everyone[1:]
        hidden = "[...document.querySelectorAll('svg g[id^=\"m0-\"]')].every(group => group.style.display === 'none')"
        assert page.value(hidden)
        page.value("document.querySelector('input[data-method=\"0\"]').click()")
        page.value("search.value = 'IGD'; search.dispatchEvent(new Event('input'))")
        assert page.value(SHOWN) == ["igdf"]
        assert page.value("said.textContent") == "1 of 3 methods are shown."
        page.value("search.value = ''; search.dispatchEvent(new Event('input'))")
        page.value("document.querySelectorAll('#results th button')[2].click()")
        assert page.value(SHOWN) == ["igdf", "base", "v2a"], "sorted by the second task"
        assert page.problems == []


def test_the_page_of_datasets(tmp_path: Path) -> None:
    for name in ("hopper", "hopper/gravity-0.5"):
        table = EpisodeCollector(parse_domain(name), "random").collect(range(5))
        write_table(table, tmp_path / name.replace("/", "_"), robot="hopper")
    done = v2a_here("data", "inspect", "hopper", "hopper_gravity-0.5", "-o", "page.html", cwd=tmp_path)
    assert (tmp_path / "page.html").exists(), done.stderr
    with opened(tmp_path / "page.html", tmp_path / "profile") as page:
        require_sound(page)
        rows = "new Set([...document.querySelectorAll('.panels')[0].children].map(panel => panel.offsetTop)).size"
        page.look(DESK, "light")
        assert page.value(rows) == 1
        page.look(PHONE, "light")
        assert page.value(rows) == 2, "panels stack"
