"""Method names and their modifications: on the command line, in files, in sweeps, in Python, and in titles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from v2a_ray.errors import ConfigError
from v2a_ray.experiments.definition import lay_over
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.methods import DEFAULT_METHOD, METHODS, method_settings
from v2a_ray.experiments.reading import load_experiment
from v2a_ray.experiments.sweep import Sweep, load_sweep
from v2a_ray.orchestration.cluster.job_spec import CONFIG_FILE, make_job
from v2a_ray.report.result_tables import TrialResult, result_row
from v2a_ray.stages.policy.config import LEARNERS

DATA: dict[str, Any] = {
    "target": {"domain": "hopper/stock", "behavior": "medium", "num_transitions": 600},
    "sources": [{"domain": "hopper/gravity-0.5", "behavior": "medium", "num_transitions": 600}],
}
DEMO = Path(__file__).parents[2] / "tune_configs" / "demo.yaml"


def file_of(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({"name": "test", **DATA, **content}))
    return path


def test_method_on_the_command_line_replaces_the_method_of_the_file() -> None:
    config = load_experiment(DEMO, ["method=dvdf"])
    assert config.method_title == "dvdf" and not config.modifications
    assert config.alignment.kind == "contrastive" and config.policy.filter.keep_fraction == 0.5
    sizes = yaml.safe_load(DEMO.read_text())
    assert config.policy.num_steps == sizes["policy"]["num_steps"] != LEARNERS().num_steps
    assert config.advantage.num_steps == sizes["advantage"]["num_steps"]


def test_modifications_of_a_replaced_method_are_dropped_with_one_notice(tmp_path: Path) -> None:
    path = file_of(tmp_path, {"method": "v2a", "alignment": {"kind": "residual", "num_steps": 30}})
    said: list[str] = []
    config = load_experiment(path, ["method=dvdf"], said.append)
    assert (config.alignment.kind, config.alignment.num_steps) == ("contrastive", 30)
    assert len(said) == 1 and "alignment.kind=residual" in said[0] and "dvdf" in said[0]
    # The same layer that chooses a method may modify it.
    config = load_experiment(path, ["method=dvdf", "alignment.kind=residual"], said.append)
    assert config.method_title == "dvdf (modified: alignment.kind=residual)"
    # For the file's own method, the file's settings are kept.
    assert load_experiment(path).method_title == "v2a (modified: alignment.kind=residual)"
    assert load_experiment(path, ["method=v2a"]).alignment.kind == "residual"


def test_settings_of_a_file_without_a_method_apply_to_all_methods(tmp_path: Path) -> None:
    path = file_of(tmp_path, {"policy": {"filter": {"keep_fraction": 0.3}}})
    assert load_experiment(path, ["method=dvdf"]).policy.filter.keep_fraction == 0.3


def test_axis_of_methods_sets_the_method_and_labels(tmp_path: Path) -> None:
    content = {
        "name": "sweep",
        "settings": {**DATA, "method": "v2a", "policy": {"filter": {"keep_fraction": 0.4}}},
        "axes": {"method": ["v2a", "dvdf"], "policy.filter.alignment_weight": [0.1, 0.7]},
    }
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(content))
    sweep = load_sweep(path)
    assert len(sweep.notices) == 1 and "keep_fraction=0.4" in sweep.notices[0]
    shown = {trial.labels["method"]: shown_name(trial) for trial in sweep.trials}
    kept = {trial.labels["method"]: trial.config.policy.filter.keep_fraction for trial in sweep.trials}
    assert kept == {"v2a": 0.4, "dvdf": 0.5}
    assert shown == {"v2a": "v2a (modified: policy.filter.keep_fraction=0.4)", "dvdf": "dvdf"}


def shown_name(trial: Any) -> str:
    result = TrialResult(trial.labels, trial.config, {}, None, "not finished", {}, None, trial.labelled)
    assert result_row(result)["method"] == trial.config.method_title
    return result.method


def sweep_of(folder: Path, overrides: Sequence[str] = (), **content: Any) -> Sweep:
    path = folder / "sweep.yaml"
    path.write_text(
        yaml.safe_dump({"name": "sweep", "settings": {**DATA, "method": "v2a"}, **content}, sort_keys=False)
    )
    return load_sweep(path, overrides)


@pytest.mark.parametrize("method_first", [True, False])
def test_order_of_axes_does_not_matter(tmp_path: Path, method_first: bool) -> None:
    axes: dict[str, Any] = {"method": ["v2a", "dvdf"], "policy.filter.keep_fraction": [0.2, 0.9]}
    names = list(axes) if method_first else list(axes)[::-1]
    sweep = sweep_of(tmp_path, axes={name: axes[name] for name in names})
    found = {(trial.labels["method"], trial.config.policy.filter.keep_fraction) for trial in sweep.trials}
    assert found == {(method, kept) for method in ("v2a", "dvdf") for kept in (0.2, 0.9)}
    assert {shown_name(trial) for trial in sweep.trials} == {"v2a", "dvdf"}


def test_labelled_and_drawn_settings_do_not_modify_the_title(tmp_path: Path) -> None:
    ablation = {"whole": {}, "no z": {"advantage": {"conditioning": "none"}}}
    assert {shown_name(trial) for trial in sweep_of(tmp_path, axes={"ablation": ablation}).trials} == {"v2a"}
    space = {"policy.filter.keep_fraction": {"uniform": [0.2, 0.8]}}
    search = {"algorithm": "random", "num_trials": 3, "space": space}
    assert {shown_name(trial) for trial in sweep_of(tmp_path, search=search).trials} == {"v2a"}


def test_method_label_does_not_hide_modifications(tmp_path: Path) -> None:
    methods = {"mine": {"method": "v2a", "alignment": {"kind": "residual"}}}
    over = ["policy.filter.keep_fraction=0.3"]
    (trial,) = sweep_of(tmp_path, over, axes={"method": methods}).trials
    assert shown_name(trial) == "mine (modified: policy.filter.keep_fraction=0.3)"
    # A registered name as label does not hide the modification either.
    (trial,) = sweep_of(tmp_path, axes={"method": {"dvdf": methods["mine"]}}).trials
    assert shown_name(trial) == "dvdf (modified: alignment.kind=residual)"


@pytest.mark.parametrize(
    ("content", "overrides", "message"),
    [
        ({"axes": {"method": ["v2a", "dvdf"]}}, ["method=igdf"], "the command line and method=v2a both set method"),
        (
            {"axes": {"size": {"small": {"policy": {"width": 8}}}}},
            ["policy.width=9"],
            "the command line and size=small both set policy.width",
        ),
        (
            {"axes": {"size": {"small": {"policy": {"width": 8}}}, "policy.width": [8, 16]}},
            [],
            "size=small and policy.width=16 both set policy.width",
        ),
        (
            {"axes": {"task": {"bare": {"policy": {"filter": None}}}, "policy.filter.keep_fraction": [0.5]}},
            [],
            "task=bare and policy.filter.keep_fraction=0.5 both set policy.filter",
        ),
        (
            {"axes": {"data": {"all": {"sources": [{"domain": "hopper/gravity-0.5"}]}}}},
            ["sources.0.behavior=expert"],
            "the command line and data=all both set sources.0.behavior",
        ),
        (
            {
                "axes": {"policy.width": [8, 16]},
                "search": {"algorithm": "optuna", "num_trials": 2, "space": {"policy.width": {"int_uniform": [8, 16]}}},
            },
            [],
            "policy.width=8 and the draw of policy.width both set policy.width",
        ),
        (
            {
                "axes": {"policy.width": [8, 16]},
                "search": {"num_trials": 2, "space": {"policy.width": {"int_uniform": [8, 160]}}},
            },
            [],
            "policy.width=8 and sample=0 both set policy.width",
        ),
    ],
)
def test_setting_that_contradicts_a_label_is_refused(
    tmp_path: Path, content: dict[str, Any], overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep_of(tmp_path, overrides, **content)


def test_axes_may_set_different_keys_of_a_section(tmp_path: Path) -> None:
    few = {"num_transitions": 600}
    axes = {
        "robot": {
            "two winds": {
                "sources": [{"domain": "hopper/gravity-0.5", **few}, {"domain": "hopper/friction-0.5", **few}]
            }
        },
        "source": {"expert": {"sources": {0: {"behavior": "expert"}, 1: {"behavior": "medium"}}}},
    }
    (trial,) = sweep_of(tmp_path, axes=axes).trials
    assert [source.behavior for source in trial.config.sources] == ["expert", "medium"]


def test_method_on_the_command_line_keeps_axes_of_settings(tmp_path: Path) -> None:
    kinds = {"contrast": {"alignment": {"kind": "contrastive"}}, "rest": {"alignment": {"kind": "residual"}}}
    sweep = sweep_of(tmp_path, ["method=dvdf"], axes={"score": kinds})
    assert [trial.config.alignment.kind for trial in sweep.trials] == ["contrastive", "residual"]
    assert {trial.config.method for trial in sweep.trials} == {"dvdf"}


def test_dropped_settings_of_a_base_are_reported(tmp_path: Path) -> None:
    file_of(tmp_path, {"method": "v2a", "policy": {"filter": {"keep_fraction": 0.4}}})
    path = tmp_path / "sweep.yaml"
    path.write_text("name: s\nbase: experiment.yaml\nsettings: {method: dvdf}\naxes: {seed: [0]}\n")
    sweep = load_sweep(path)
    assert len(sweep.notices) == 1 and "experiment.yaml: policy.filter.keep_fraction=0.4" in sweep.notices[0]
    assert sweep.trials[0].config.method_title == "dvdf"
    # A submitted job is the same sweep and has the same notices.
    said: list[str] = []
    job = make_job(path, [], "/shared/results", said.append)
    assert said == sweep.notices
    (tmp_path / "there").mkdir()
    job.write(tmp_path / "there")
    (trial,) = load_sweep(tmp_path / "there" / CONFIG_FILE).trials
    assert trial.config.policy.filter == sweep.trials[0].config.policy.filter


def test_modified_method_has_a_separate_results_folder() -> None:
    plain = ExperimentConfig(name="test", method="dvdf", **DATA)
    modified = ExperimentConfig(name="test", method="dvdf", alignment={"kind": "residual"}, **DATA)
    assert (plain.folder_name, modified.folder_name) == ("test-dvdf-seed0", "test-dvdf-modified-seed0")


def test_python_and_command_line_make_the_same_experiment(tmp_path: Path) -> None:
    content = {"method": "iql_target", "policy": {"num_steps": 30}}
    assert ExperimentConfig(name="test", **DATA, **content) == load_experiment(file_of(tmp_path, content))
    assert ExperimentConfig(name="test", **DATA, **content).policy.data == "target"
    with pytest.raises(ConfigError, match="unknown method 'nonsense'"):
        ExperimentConfig(name="test", method="nonsense", **DATA)


@pytest.mark.parametrize("name", METHODS)
def test_unchanged_method_has_no_modifications(name: str) -> None:
    config = ExperimentConfig(name="test", method=name, **DATA)
    assert config.method_title == name
    # Dumping and validating gives the same experiment.
    assert ExperimentConfig.model_validate(config.model_dump(mode="json")) == config


def test_default_method_is_recommended_in_the_readme() -> None:
    readme = (DEMO.parents[1] / "README.md").read_text()
    assert f"`{DEFAULT_METHOD}`, the default" in readme
    assert ExperimentConfig(name="test", **DATA).method == DEFAULT_METHOD


@pytest.mark.parametrize(
    ("given", "expected"), [({}, 5), ({"upstream_seed": None}, 5), ({"upstream_seed": 0}, 0), ({"upstream_seed": 7}, 7)]
)
def test_upstream_seed_defaults_to_the_seed(given: dict[str, Any], expected: int) -> None:
    assert ExperimentConfig(name="test", seed=5, **given, **DATA).upstream_seed == expected


@pytest.mark.parametrize("name", ["dvdf", "dvdf_ot"])
def test_dvdf_weight_follows_the_published_code_by_default(name: str) -> None:
    assert method_settings(name)["policy"]["filter"]["weight"] == "exp_alignment"
    text = " ".join(METHODS[name].deviations)
    assert "policy.filter.weight=score" in text
    config = ExperimentConfig(name="test", method=name, policy={"filter": {"weight": "score"}}, **DATA)
    assert config.method_title == f"{name} (modified: policy.filter.weight=score)"


def test_lay_over_keeps_sizes_and_drops_definitions() -> None:
    base = {"method": "v2a", "policy": {"num_steps": 5, "filter": {"rule": "none"}}, "advantage": {"latent": "oracle"}}
    laid, dropped = lay_over(base, {"method": "igdf"})
    assert laid == {"method": "igdf", "policy": {"num_steps": 5, "filter": {}}, "advantage": {}}
    assert dropped == {"policy.filter.rule": "none", "advantage.latent": "oracle"}
