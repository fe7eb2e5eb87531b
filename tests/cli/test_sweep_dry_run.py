"""`v2a sweep --dry-run`, and sweep files that make no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.command import CONFIG, v2a_here
from v2a_ray.experiments.sweep import load_sweep

GRID: dict[str, Any] = {
    "name": "grid",
    "settings": CONFIG,
    "axes": {"task": {"low": {}, "high": {}}, "method": ["igdf", "iql_mixed"], "seed": [0, 1, 2]},
}


def write(folder: Path, **changes: Any) -> None:
    (folder / "grid.yaml").write_text(yaml.safe_dump(GRID | changes, sort_keys=False))


def refused(folder: Path, *overrides: str) -> str:
    """The message, on one line, of a sweep that is refused."""
    done = v2a_here("sweep", "grid.yaml", "--dry-run", *overrides, cwd=folder)
    assert done.returncode == 2, done.stdout
    return " ".join(done.stderr.split())


def test_prints_counts_hours_and_resources_and_computes_nothing(tmp_path: Path) -> None:
    write(tmp_path)
    done = v2a_here("sweep", "grid.yaml", "--dry-run", "--num-cpus", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split()[1:4] for line in done.stdout.splitlines() if line.strip()}
    # Seeds 0, 1, 2 of either method under two names: the second name's policies are the first one's.
    assert (rows["data"], rows["alignment"], rows["policy"]) == (["3", "0", "3"], ["3", "0", "3"], ["6", "0", "6"])
    assert "12 trials" in done.stdout and "on 3 cores, 3 trials at a time" in done.stdout
    assert "benchmarks.stage_rates" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.yaml"]


def test_an_axis_without_values_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    message = refused(tmp_path, "axes.seed=[]")
    assert "the axis has no value" in message and "axes.seed" in message
    write(tmp_path, axes={})
    assert "there is nothing to vary" in refused(tmp_path)


def test_the_command_line_chooses_labels_of_an_axis(tmp_path: Path) -> None:
    names = ("gravity-0.5", "otdf-morph", "stock")
    mixes = {name: {"sources": {0: {"domain": f"hopper/{name}"}}} for name in names}
    write(tmp_path, axes={"mix": mixes, "seed": {"0": {"seed": 0}, "1": {"seed": 1}}})
    chosen = load_sweep(tmp_path / "grid.yaml", ["axes.mix=[stock, otdf-morph]", "axes.seed=[1]"])
    assert chosen.axes == {"mix": ["stock", "otdf-morph"], "seed": ["1"]}
    assert [trial.config.sources[0].domain for trial in chosen.trials] == ["hopper/stock", "hopper/otdf-morph"]
    message = refused(tmp_path, "axes.mix=[gravity-3]")
    assert "command line: axes.mix has no label 'gravity-3'" in message and "gravity-0.5, otdf-morph, stock" in message


def test_a_million_trials_are_refused_with_the_product(tmp_path: Path) -> None:
    write(
        tmp_path, axes={"method": ["igdf", "iql_mixed"], "seed": list(range(500)), "policy.width": list(range(1, 1001))}
    )
    message = refused(tmp_path)
    assert "1,000,000 trials" in message and "10,000" in message
    assert "2 method × 500 seed × 1000 policy.width" in message and "grid.yaml" in message


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"policy.widht": [8, 16]}, ("policy.widht: unknown key", "'width'", "grid.yaml", "policy.widht=8")),
        (
            {"seed": [0], "task": {"good": {}, "bad": {"policy": {"filter": {"keep_part": 0.5}}}}},
            ("policy.filter.keep_part: unknown key", "'keep_fraction'", "grid.yaml", "seed=0 task=bad"),
        ),
        ({"method": ["igdf", "magic"]}, ("unknown method 'magic'", "grid.yaml", "method=magic")),
    ],
)
def test_an_unknown_key_is_named_with_file_and_combination(
    tmp_path: Path, axes: dict[str, Any], said: tuple[str, ...]
) -> None:
    write(tmp_path, axes=axes)
    message = refused(tmp_path)
    assert all(part in message for part in said), message


def test_an_unknown_key_of_the_sweep_itself_is_named_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, axis={"seed": [0]})
    message = refused(tmp_path)
    assert "axis: unknown key; did you mean 'axes'?" in message and "grid.yaml:" in message
