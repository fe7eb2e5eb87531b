"""Names with escape sequences, markup or bytes that cannot be decoded."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.cli.command import CONFIG, v2a_here
from v2a_ray.cli.console import console
from v2a_ray.experiments.reading import resolve
from v2a_ray.report.result_tables import TrialResult, render_cells

NAMES = [
    b"a\x1b[31mred.npz",
    "a\x9b2J\u202e.npz".encode(),
    b"a\xff.npz",
    b"a[/x].npz",
    b"a[bold]b.npz",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["list", "inspect"])
def test_a_file_name_cannot_steer_the_terminal(name, command, tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", rewards=np.zeros(3))
    path = tmp_path / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"not an archive")
    arguments = ["."] if command == "list" else [os.fsdecode(name)]
    done = v2a_here("data", command, *arguments, cwd=tmp_path)
    shown = done.stdout + done.stderr
    assert "Traceback" not in shown and done.returncode == (0 if command == "list" else 2)
    assert not set("\x1b\x9b\u202e\udcff") & set(shown)
    if command == "list":
        assert "good.npz" in shown
    # Harmless names are shown unchanged.
    if os.fsdecode(name).isascii() and os.fsdecode(name).isprintable():
        assert os.fsdecode(name) in shown


def test_markup_in_a_users_names_is_shown_as_it_is(tmp_path: Path) -> None:
    sources = [CONFIG["sources"][0] | {"name": "[red]near"}]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(CONFIG | {"sources": sources}))
    mixed = v2a_here("data", "mix", "run.yaml", "--dry-run", cwd=tmp_path)
    assert mixed.returncode == 0 and mixed.stdout.count("[red]near") == 2
    sweep = {"name": "[bold]all", "base": "run.yaml", "axes": {"seed": [0]}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    assert "[bold]all · 1 trials" in v2a_here("sweep", "sweep.yaml", "--dry-run", cwd=tmp_path).stdout


def test_markup_in_labels_stays_in_a_table_of_results() -> None:
    config = resolve(CONFIG)
    labels = {"mix": "[red]near", "method": "v2a", "seed": "0"}
    result = TrialResult(labels, config, {"normalized_score_mean": 1.0}, None, "finished", {}, None)
    with console.capture() as shown:
        console.print(render_cells([result]))
    assert "[red]near" in shown.get()
