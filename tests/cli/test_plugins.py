"""Plugins, from a file or an installed package: their kinds work like built-in kinds in every process."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.command import v2a, v2a_here
from v2a_ray.data.formats.known_formats import FORMATS, Format, register_format
from v2a_ray.engine.plan import make_plan
from v2a_ray.errors import ConfigError
from v2a_ray.experiments import plugins
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.methods import METHODS
from v2a_ray.experiments.plugins import ENVIRONMENT
from v2a_ray.experiments.reading import load_experiment
from v2a_ray.experiments.sweep import load_sweep
from v2a_ray.files import read_json
from v2a_ray.orchestration.cluster.job_spec import make_job
from v2a_ray.stages.alignment.config import ALIGNMENTS
from v2a_ray.stages.modality.config import ENCODERS
from v2a_ray.stages.policy.config import FILTERS, LEARNERS

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"
SMALL = {
    "policy": {"num_steps": 20, "width": 8, "batch_size": 16},
    "evaluation": {"num_episodes": 1, "interval_steps": 0},
}


@pytest.fixture(scope="module", autouse=True)
def leave_nothing_registered() -> Iterator[None]:
    """What plugins register here would be there for the other tests of this process."""
    registers: list[dict[str, Any]] = [METHODS, ALIGNMENTS._kinds, LEARNERS._kinds, FILTERS._kinds, ENCODERS, FORMATS]
    registers.append(plugins._loaded)
    before = [dict(register) for register in registers]
    yield
    for register, content in zip(registers, before, strict=True):
        register.clear()
        register.update(content)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A copy of the example with a small experiment."""
    folder = tmp_path / "plugin"
    shutil.copytree(EXAMPLE, folder)
    content = yaml.safe_load((folder / "experiment.yaml").read_text()) | SMALL
    content["target"]["num_transitions"] = 300
    content["sources"] = [source | {"num_transitions": 300} for source in content["sources"]]
    (folder / "experiment.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_a_run_uses_a_plugin_in_other_processes(ray_cluster: None, plugin: Path, tmp_path: Path) -> None:
    done = v2a_here("run", str(plugin / "experiment.yaml"), "--run-dir", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = read_json(tmp_path / "out" / "result.json")
    assert result["config"]["policy"]["learner"] == "weighted_bc"
    assert {"alignment", "policy"} <= {stage["name"] for stage in result["stages"]}


@pytest.mark.slow
def test_trials_of_a_sweep_load_the_plugin(ray_cluster: None, plugin: Path, tmp_path: Path) -> None:
    sweep = {"name": "sweep", "base": "experiment.yaml", "axes": {"policy.sharpness": [0.0, 1.0]}}
    (plugin / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    done = v2a_here("sweep", str(plugin / "sweep.yaml"), "--run-dir", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "table.md").read_text().count("(n=1)") == 2


def test_an_experiment_takes_its_plugins_along(plugin: Path) -> None:
    """A process that has never seen the file gets its content with the experiment."""
    config = load_experiment(plugin / "experiment.yaml")
    (plugin / "nearest_rows.py").unlink()
    sent = plugin / "sent"
    sent.write_bytes(pickle.dumps(config))
    script = f"import pickle; print(pickle.load(open({str(sent)!r}, 'rb')).alignment.num_neighbors)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=plugin.parent)
    assert done.stdout.strip() == "5"


def test_a_changed_plugin_makes_new_artifacts(plugin: Path) -> None:
    experiment, file = plugin / "experiment.yaml", plugin / "nearest_rows.py"
    before = keys_of(experiment)
    assert keys_of(experiment) == before
    file.write_text(file.read_text().replace("-distances.mean", "-2 * distances.mean"))
    after = keys_of(experiment)
    assert {name for name in before if before[name] != after[name]} == {"alignment", "policy"}


FILTER = """
import torch
from typing import Literal
from v2a_ray.stages.policy.config import FILTERS, FilterConfig
from v2a_ray.stages.policy.filtering import KeepAll

class Half(KeepAll):
    def num_kept(self, batch_size): return batch_size // 2
    def keep(self, score_B): return torch.arange(len(score_B) // 2)

@FILTERS.add
class HalfConfig(FilterConfig):
    selects = Half
    needs_score = False
    rule: Literal["half"] = "half"
"""
ENCODER = """
from v2a_ray.networks import PooledEncoder
from v2a_ray.stages.modality.config import register_encoder

class Mine(PooledEncoder):
    scale = 1 // 2

register_encoder("mine", Mine)
"""


@pytest.mark.parametrize(
    ("source", "settings", "renewed"),
    [
        (FILTER, {"policy": {"filter": {"rule": "half"}}}, {"policy"}),
        (ENCODER, {"modality": {"encoder": "mine"}}, {"modality", "advantage", "policy"}),
        (FILTER, {}, set()),
        (ENCODER, {}, set()),
    ],
)
def test_a_changed_filter_or_encoder_renews_what_uses_it(
    source: str, settings: dict[str, Any], renewed: set[str], tmp_path: Path
) -> None:
    file, experiment = tmp_path / "mine.py", tmp_path / "experiment.yaml"
    data = {"behavior": "random", "num_transitions": 100}
    content: dict[str, Any] = {"name": "x", "method": "v2a", "target": {"domain": "hopper", **data}}
    content["sources"] = [{"domain": "hopper/gravity-0.5", **data}]
    experiment.write_text(yaml.safe_dump(content))
    plain = keys_of(experiment)
    experiment.write_text(yaml.safe_dump(content | settings | {"plugins": ["mine.py"]}))
    file.write_text(source)
    before = keys_of(experiment)
    assert keys_of(experiment) == before and (settings or before == plain)
    file.write_text(source.replace("// 2", "// 10"))
    after = keys_of(experiment)
    assert {name for name in before if before[name] != after[name]} == renewed


TWO_FILES = """
from typing import Literal
from code_of_mine import Half
from v2a_ray.stages.policy.config import FILTERS, FilterConfig

@FILTERS.add
class HalfConfig(FilterConfig):
    selects = {selects}
    rule: Literal["half_of_mine"] = "half_of_mine"
"""


@pytest.mark.parametrize("selects", ["Half", "'code_of_mine:Half'"])
def test_what_a_plugin_names_in_another_file_is_its_content_too(
    selects: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, experiment = tmp_path / "code_of_mine.py", tmp_path / "experiment.yaml"
    module.write_text(FILTER.partition("@FILTERS")[0])
    monkeypatch.delitem(sys.modules, "code_of_mine", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine.py").write_text(TWO_FILES.format(selects=selects))
    data = {"behavior": "random", "num_transitions": 100}
    content: dict[str, Any] = {"name": "x", "method": "v2a", "plugins": ["mine.py"]}
    content |= {"target": {"domain": "hopper", **data}, "sources": [{"domain": "hopper/gravity-0.5", **data}]}
    experiment.write_text(yaml.safe_dump(content | {"policy": {"filter": {"rule": "half_of_mine"}}}))
    before = keys_of(experiment)
    assert keys_of(experiment) == before
    module.write_text(module.read_text() + "# another version")
    after = keys_of(experiment)
    assert {name for name in before if before[name] != after[name]} == {"policy"}


def test_a_changed_format_renews_the_data_that_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, module = tmp_path / "experiment.yaml", tmp_path / "format_of_mine.py"
    (tmp_path / "a.mine").write_bytes(b"MINE1")
    (tmp_path / "b.hdf5").write_bytes(b"not read by a plan")
    data = {"domain": "hopper", "behavior": "medium"}
    content = {"name": "x", "method": "iql", "data_root": str(tmp_path), "target": {**data, "path": "a.mine"}}
    sources = [{**data, "path": "b.hdf5", "name": "other"}]
    experiment.write_text(yaml.safe_dump({**content, "sources": sources}))
    plain = keys_of(experiment)
    module.write_text("def holds(location):\n    return True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    own = Format("mine", "my own", (".mine",), b"MINE", module="format_of_mine")
    register_format(replace(own, summary="its first version"))
    assert register_format(own) is FORMATS["mine"]
    with pytest.raises(ValueError, match="format 'npz' is there already"):
        register_format(replace(own, name="npz"))
    before = keys_of(experiment)
    module.write_text(module.read_text() + "# 2\n")
    after = keys_of(experiment)
    target = {"data/target", "rows/target", "policy"}
    for one, other in ((plain, before), (before, after)):
        assert {name for name in one if one[name] != other[name]} == target


def keys_of(experiment: Path) -> dict[str, str]:
    return {name: node.key for name, node in make_plan(load_experiment(experiment)).items()}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, r"plugins: .*nearest_rows.py: cannot be read: No such file"),
        ("x = (", r"plugins: .*nearest_rows.py:1: cannot be loaded: SyntaxError"),
        ("\n\nimport nowhere_at_all", r"nearest_rows.py:3: cannot be loaded: ModuleNotFoundError"),
        ("VALUE = 1 / 0", r"nearest_rows.py:1: cannot be loaded: ZeroDivisionError"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_one_message(plugin: Path, source: str | None, message: str) -> None:
    file = plugin / "nearest_rows.py"
    file.unlink() if source is None else file.write_text(source)
    with pytest.raises(ConfigError, match=message):
        load_experiment(plugin / "experiment.yaml")


def test_a_plugin_cannot_take_a_builtin_name(plugin: Path) -> None:
    file = plugin / "nearest_rows.py"
    ours = file.read_text().replace('Literal["nearest_rows"] = "nearest_rows"', 'Literal["residual"] = "residual"')
    file.write_text(ours)
    with pytest.raises(ConfigError, match="alignment 'residual' is there already"):
        load_experiment(plugin / "experiment.yaml")


def test_plugins_of_a_finished_run_are_not_executed(plugin: Path, tmp_path: Path) -> None:
    """Inspecting a folder from somebody else must not run its code."""
    seen = tmp_path / "seen"
    (plugin / "nearest_rows.py").write_text(f"open({str(seen)!r}, 'w')")
    content: dict[str, Any] = {"name": "x", "plugins": [str(plugin / "nearest_rows.py")]}
    content["target"] = {"domain": "hopper/stock", "behavior": "random", "num_transitions": 10}
    raw = content | {"sources": [content["target"]]}
    with pytest.raises(ConfigError, match=f"was not loaded.*\n.*if you trust it, put {ENVIRONMENT}="):
        ExperimentConfig.model_validate(raw)
    assert not seen.exists()


def test_an_installed_package_registers_its_kinds(plugin: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (plugin / "nearest_rows.py").rename(site / "nearest_rows.py")
    about = site / "nearest_rows-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: nearest-rows\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[v2a_ray.alignments]\nnearest_rows = nearest_rows:NearestRowsConfig\n")
    path: dict[str, Any] = {"env": {**os.environ, "PYTHONPATH": f"{site}:{Path(__file__).parents[2]}"}}
    listed = v2a("methods", cwd=tmp_path, **path)
    assert listed.returncode == 0 and "nearest_bc" in listed.stdout, listed.stderr
    (site / "nearest_rows.py").write_text("import nowhere_at_all")
    broken = v2a("methods", cwd=tmp_path, **path)
    assert broken.returncode == 2
    assert "plugin nearest_rows (nearest_rows:NearestRowsConfig" in " ".join(broken.stderr.split())


def test_a_job_ships_the_plugin(plugin: Path, tmp_path: Path) -> None:
    job = make_job(plugin / "experiment.yaml", [f"store={tmp_path / 'store'}"], str(tmp_path / "out"))
    (tmp_path / "shipped").mkdir()
    job.write(tmp_path / "shipped")
    assert sorted(path.name for path in (tmp_path / "shipped").iterdir()) == ["experiment.yaml", "nearest_rows.py"]
    assert load_experiment(tmp_path / "shipped" / "experiment.yaml").policy.learner == "weighted_bc"


def test_a_sweep_resolves_plugins_beside_its_file(plugin: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    sweep = {"name": "sweep", "base": "../plugin/experiment.yaml", "axes": {"seed": [0, 1]}}
    (other / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    (trial, _) = load_sweep(other / "sweep.yaml").trials
    assert trial.config.plugins == [str(plugin / "nearest_rows.py")]
