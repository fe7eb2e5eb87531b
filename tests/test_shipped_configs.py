"""Every shipped file loads, states its purpose and command, and has the size that it states."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from v2a_ray.engine.plan import make_plan
from v2a_ray.errors import ConfigError
from v2a_ray.experiments.reading import load_experiment
from v2a_ray.experiments.sweep import Sweep, load_sweep

FOLDER = Path(__file__).parents[1] / "tune_configs"
CONTENTS = {file: yaml.safe_load(file.read_text()) for file in sorted(FOLDER.rglob("*.yaml"))}
"""Read once: the study's sweeps are long, and every test needs the paths in all of them."""
FILES = list(CONTENTS)
SWEEPS = [file for file, content in CONTENTS.items() if {"axes", "search"} & content.keys()]
EXPERIMENTS = [file for file in FILES if file not in SWEEPS]


def comment(file: Path) -> str:
    """The lines before the first setting."""
    lines = file.read_text().splitlines()
    return "\n".join(line for line in lines[: lines.index(f"name: {file.stem}")])


def paths(content: Any) -> Iterator[str]:
    """Every `path` in a file's content."""
    for value in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from paths(value)
    if isinstance(content, dict) and isinstance(content.get("path"), str):
        yield content["path"]


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    """Overrides for a store, and for a folder with placeholders for data that we do not ship."""
    for path in {path for content in CONTENTS.values() for path in paths(content)}:
        (tmp_path / path).write_bytes(b"recorded elsewhere")
    return [f"data_root={tmp_path}", f"store={tmp_path / 'store'}"]


def distinct(sweep: Sweep) -> Counter[str]:
    """Maps stages to numbers of artifacts."""
    return Counter(
        stage for stage, _ in {(node.stage, node.key) for trial in sweep.trials for node in trial.plan.values()}
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shipped_file_begins_with_its_purpose_and_command(file: Path) -> None:
    text = comment(file)
    assert all(line.startswith("# ") for line in text.splitlines())
    assert f"#   v2a {'sweep' if file in SWEEPS else 'run'} tune_configs/{file.relative_to(FOLDER)}" in text
    assert len(text.splitlines()[0]) > 30 and not text.startswith("#   v2a")
    recorded = any(paths(CONTENTS[file]))
    assert not recorded or "data_root=DIR" in text


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_shipped_sweeps_have_the_documented_size(file: Path, overrides: list[str]) -> None:
    counts = re.search(r"^# (.+) = (\d+) trials\b", comment(file), flags=re.MULTILINE)
    assert counts, "the comment says how many trials"
    product = 1
    for factor in counts[1].split(" × "):
        product *= int(factor.split()[0])
    sweep = load_sweep(file, overrides)
    assert product == int(counts[2]) == sweep.num_trials
    assert sweep.name == file.stem


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_shipped_experiments_load(file: Path, overrides: list[str]) -> None:
    config = load_experiment(file, overrides)
    assert config.name == file.stem and make_plan(config)["policy"].key


def test_suite_has_four_robots_and_six_mixes(overrides: list[str]) -> None:
    file = next(file for file in SWEEPS if file.stem == "hetero24")
    sweep = load_sweep(file, overrides)
    tasks = {(trial.labels["robot"], trial.labels["source"], trial.labels["target"]) for trial in sweep.trials}
    assert Counter(robot for robot, _, _ in tasks) == {"hopper": 6, "walker2d": 6, "halfcheetah": 6, "ant": 6}
    assert {trial.config.target.num_transitions for trial in sweep.trials} == {5000}
    for trial in sweep.trials:
        config = trial.config
        assert config.target.domain == f"{trial.labels['robot']}/stock"
        assert config.target.behavior == trial.labels["target"] and config.method == trial.labels["method"]
        assert {source.behavior for source in config.sources} == {trial.labels["source"]}
        assert len({source.domain for source in config.sources}) == 4
        assert all(source.path is None and source.domain.startswith(trial.labels["robot"]) for source in config.sources)
    # As in docs/hetero24.md: 4 robots × (4 dynamics × 3 behaviours + 2 targets) parts, one source per robot and
    # behaviour, and per seed one z of the source for V2A (shared by targets) and one of source and target for our form.
    assert distinct(sweep) == {
        "data": 56,
        "source": 12,
        "rows": 20,
        "modality": 108,
        "advantage": 216,
        "alignment": 216,
        "density": 72,
        "policy": 648,
    }


def test_shipped_search_changes_only_the_policy(overrides: list[str]) -> None:
    file = next(file for file in SWEEPS if file.stem == "search_v2a")
    sweep = load_sweep(file, overrides)
    assert sweep.suggests and len(sweep.trials) == 1
    # Any draw changes only the node of the policy.
    assert sweep.probes
    assert {
        name for trial in sweep.probes for name, node in trial.plan.items() if node != sweep.trials[0].plan[name]
    } == {"policy"}


@pytest.mark.parametrize("written", ["demo", "tune_configs/demo.yaml"])
def test_shipped_file_is_found_by_name_from_any_folder(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_experiment(Path(written)).name == "demo"
    # The user's file takes precedence.
    (tmp_path / "demo").write_text((FOLDER / "demo.yaml").read_text().replace("name: demo", "name: mine"))
    assert load_experiment(Path("demo")).name == "mine"


@pytest.mark.parametrize("written", ["demo", "tune_configs/demo.yaml"])
def test_a_sweep_is_laid_over_a_shipped_experiment_of_that_name(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    sweep = tmp_path / "mine.yaml"
    sweep.write_text(f"name: mine\nbase: {written}\naxes: {{seed: [0, 1]}}\n")
    (trial, _) = load_sweep(Path("../mine.yaml")).trials
    assert trial.config.target.num_transitions == 3000
    # The file beside the sweep takes precedence, whatever lies in the working directory.
    beside = tmp_path / written
    beside.parent.mkdir(exist_ok=True)
    for file, count in ((beside, 2000), (tmp_path / "elsewhere" / "demo", 1000)):
        file.write_text(
            (FOLDER / "demo.yaml").read_text().replace("num_transitions: 3000", f"num_transitions: {count}")
        )
    assert load_sweep(Path("../mine.yaml")).trials[0].config.target.num_transitions == 2000


def test_unknown_shipped_name_lists_the_shipped_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for load in (load_experiment, load_sweep):
        with pytest.raises(ConfigError, match=r"dmeo: no such file[^/]*demo, demo_comparison"):
            load(Path("dmeo"))
