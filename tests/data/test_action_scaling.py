"""Actions outside [-1, 1] are scaled where it is asked for, by bounds that are recorded, and refused otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.command import v2a_here
from v2a_ray.data.config import ActionBounds, Columns
from v2a_ray.data.formats.readers import export_table, read_table
from v2a_ray.data.table.folder import read_manifest, read_table_folder
from v2a_ray.errors import DataError

COLUMNS = Columns(observation=["q"], action=["a", "b"], episode="run", reward="r")
ACTIONS = np.array([[-3.0, 0.0], [0.0, 5.0], [3.0, 10.0], [1.5, 2.5]])
SCALED = [[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0], [0.5, -0.5]]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [f"{index},{a},{b},{index // 2},1.0" for index, (a, b) in enumerate(ACTIONS.tolist())]
    # What one row leads to is the next one's state, so each run has a row more, which is left out.
    lines = ["q,a,b,run,r", *rows[:2], "1.5,0,0,0,0", *rows[2:], "4,0,0,1,0"]
    (tmp_path / "arm.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "arm.csv"


@pytest.mark.parametrize("bounds", ["measured", [(-3.0, 3.0), (0.0, 10.0)]])
def test_actions_are_scaled_from_bounds_which_are_recorded(table: Path, bounds: ActionBounds) -> None:
    with pytest.raises(DataError, match="action"):
        read_table(table, columns=COLUMNS)
    found, findings = read_table(table, columns=COLUMNS, action_bounds=bounds)
    assert np.allclose(found.action, SCALED)
    (note,) = (finding for finding in findings if finding.check == "actions_scaled")
    assert note.message == "actions are scaled to [-1, 1] from [-3, 3], [0, 10]"


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ([(-3.0, 3.0)], "1 bounds for 2 actions"),
        ([(-3.0, 3.0), (0.0, 4.0)], r"action 1 is 5 in transition 1, outside its bounds \(2 such"),
        ([(-3.0, 3.0), (1.0, 1.0)], "action 1 has bounds 1 and 1"),
        ("declared", "declares no bounds"),
    ],
)
def test_bounds_that_do_not_fit_are_refused(table: Path, bounds: ActionBounds, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_table(table, columns=COLUMNS, action_bounds=bounds)


def test_lerobots_metadata_declare_bounds(table: Path, tmp_path: Path) -> None:
    scaled, _ = read_table(table, columns=COLUMNS, action_bounds="measured")
    folder = tmp_path / "lerobot"
    export_table(scaled, folder, format="lerobot")
    (folder / "meta/stats.json").write_text(json.dumps({"action": {"min": [-2.0, -1.0], "max": [2.0, 1.0]}}))
    found, _ = read_table(folder, action_bounds="declared")
    assert np.allclose(found.action, scaled.action * [0.5, 1.0])


def test_the_command_line_scales_and_names_columns(table: Path, tmp_path: Path) -> None:
    columns = "{observation: q, action: [a, b], episode: run, reward: r}"
    domain = "real?observation_dim=1&action_dim=2"
    words = ["data", "convert", str(table), "--domain", domain, "-o", "out", "--columns", columns]
    done = v2a_here(*words, "--action-bounds", "[[-3, 3], [0, 10]]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.allclose(read_table_folder(tmp_path / "out").action, SCALED)
    assert any(finding["check"] == "actions_scaled" for finding in read_manifest(tmp_path / "out")["findings"])
    refused = v2a_here(*words, "--action-bounds", "most", cwd=tmp_path)
    assert refused.returncode == 2 and "no bounds: most" in refused.stderr
    inspected = v2a_here("data", "inspect", str(table), "--columns", columns, cwd=tmp_path)
    assert inspected.returncode == 2 and "outside" in " ".join(inspected.stdout.split())
