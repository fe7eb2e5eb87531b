"""The map of z on the page of results: every source part told apart, in a picture and in numbers."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.cli.command import v2a_here
from tests.cli.finished_folders import write_result
from tests.data.builders import make_table
from v2a_ray.data.table.episodes import EpisodeTable, concatenate
from v2a_ray.data.table.folder import write_table
from v2a_ray.engine.columns import write_episode_column

pytest.importorskip("sklearn")
CENTRES = {"<b>near</b>": 0.0, "far": 10.0, "farther": 12.0}
LATENT = 8


def source_of(num_episodes: int) -> EpisodeTable:
    """So many episodes of each part."""
    tables = []
    for index, part in enumerate(CENTRES):
        table = make_table([2] * num_episodes, seed=index)
        named = tuple(f"{part}/{number}" for number in range(num_episodes))
        tables.append(table.labelled(source=part, domain="any", behavior="any").replace(episode_id=named))
    return concatenate(tables)


def write_map(folder: Path, num_episodes: int = 40, mode: str = "shared") -> Path:
    """A run whose modality artifact has z around each part's centre on the first axis."""
    labels = {"mix": "mine", "method": "v2a", "seed": "0"}
    write_result(folder / "run", labels, 50.0, "v2a", filter={"alignment_weight": 0.5})
    table = source_of(num_episodes)
    write_table(table, folder / "store/source/1/table", robot="any")
    spread = np.random.default_rng(0).normal(size=(table.num_episodes, LATENT)) * 0.1
    spread[:, 0] += [CENTRES[part] for part in table.source]
    (folder / "store/modality/1").mkdir(parents=True)
    write_episode_column(folder / "store/modality/1/column.parquet", "z", table, spread.astype(np.float32))
    file = folder / "run/result.json"
    result = json.loads(file.read_text())
    for name in ("source", "modality"):
        made = {"name": name, "seconds": 1.0, "cached": False, "artifact": str(folder / f"store/{name}/1")}
        result["stages"].append(made)
    result["config"]["modality"] |= {"latent_dim": LATENT, "mode": mode}
    file.write_text(json.dumps(result))
    return folder / "run"


class Cells(HTMLParser):
    """Texts of the table under the map, row by row, and the labels of pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.pictures: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "details":
            self.inside = True
        if tag == "tr" and self.inside:
            self.rows.append([])
        self.pictures += [value for name, value in attrs if name == "aria-label" and tag == "svg" and value]

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "details"

    def handle_data(self, data: str) -> None:
        if self.inside and self.rows and data.strip():
            self.rows[-1].append(data)


def reported(run: Path) -> str:
    done = v2a_here("report", str(run), "-o", "page.html", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    return (run.parent / "page.html").read_text()


def test_every_part_is_on_the_map_in_the_legend_and_in_the_table(tmp_path: Path) -> None:
    text = reported(write_map(tmp_path / "sweep"))
    found = Cells(text)
    _, *rows = found.rows
    by_part = {row[0]: row[1:] for row in rows[:3]}
    assert by_part.keys() == CENTRES.keys() and "<b>near" not in text
    assert [row[:2] for row in by_part.values()] == [["40", "40"]] * 3
    assert by_part["far"][4].startswith("farther, 2.0") and by_part["farther"][4].startswith("far, 2.0")
    assert 0.2 < float(by_part["far"][3]) < 0.4, "the root mean square of eight times 0.1"
    (picture,) = [label for label in found.pictures if "trajectories" in label]
    assert picture.startswith("mine: 120 of 120 trajectories of 3 parts")
    assert "part of the source" in text and "modality.mode=per_source" not in text


def test_many_trajectories_are_drawn_in_part_and_the_page_stays_small(tmp_path: Path) -> None:
    text = reported(write_map(tmp_path / "sweep", num_episodes=3000, mode="per_source"))
    assert len(text) < 1e6 and "3,000 of 9,000 trajectories" in text
    assert len(re.findall(r"<use ", text)) < 4000
    assert "an encoder of its own" in text and [row[5] for row in Cells(text).rows[1:4]] == ["–"] * 3


def test_what_is_gone_is_said_instead_of_the_map(tmp_path: Path) -> None:
    run = write_map(tmp_path / "sweep")
    (tmp_path / "sweep/store/modality/1/column.parquet").unlink()
    text = reported(run)
    assert "mine: z is not in the artifact store any more" in text and "<details>" not in text
    (tmp_path / "sweep/store/modality/1/column.parquet").write_bytes(b"no")
    assert "mine: z cannot be read: " in reported(run)
