"""The Python interface for notebooks and scripts. It does the same as the commands, and prints nothing.

    import v2a_ray as v2a

    config = v2a.experiment("tune_configs/demo.yaml", method="iql_target", **{"policy.num_steps": 5000})
    result = v2a.run(config, "runs/mine")
    policy = v2a.load_policy("runs/mine")
    action = policy.act(observation)

All functions raise `v2a_ray.errors.V2AError`; its text says what is wrong, where, and what to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import gymnasium
    import pandas as pd

    from v2a_ray.experiments.experiment import ExperimentConfig
    from v2a_ray.export.policies import Policy

Source = str | Path | Mapping[str, Any]
"""A YAML file, or the content of one."""


def experiment(source: Source, **overrides: Any) -> ExperimentConfig:
    """A complete experiment with `overrides` applied; give dotted keys as `**{"policy.width": 64}`.

    If another method is chosen, the source's modifications of its own method are dropped, as on the command line.
    Raises ConfigError or DomainError for invalid settings.
    """
    from v2a_ray.experiments.definition import lay_over
    from v2a_ray.experiments.reading import load_experiment, resolve, with_plugins
    from v2a_ray.settings.yaml_files import parse_overrides

    over = _as_overrides(overrides)
    if not isinstance(source, Mapping):
        return load_experiment(Path(source), over)
    raw, _ = lay_over(source, parse_overrides(over))
    return resolve(with_plugins(raw, Path("settings")))


def run(
    source: Source | ExperimentConfig,
    run_dir: str | Path | None = None,
    *,
    num_cpus: int | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Run an experiment and return the content of its `result.json`.

    Artifacts in the store are reused, and interrupted ones continue from their checkpoints. If Ray runs in this process
    it is used; otherwise it is started with `num_cpus` cores, by default all, and stopped at the end.

    Args:
        run_dir: folder for results; by default `runs/NAME-METHOD-seedSEED`.
    """
    from v2a_ray.engine.plan import make_plan
    from v2a_ray.experiments.experiment import ExperimentConfig
    from v2a_ray.orchestration.cluster.session import ray_session
    from v2a_ray.orchestration.train.run import run_experiment
    from v2a_ray.result_folders import results_folder

    if isinstance(source, ExperimentConfig):
        source = source.model_dump(mode="json")
    config = experiment(source, **overrides)
    with results_folder(run_dir or Path("runs") / config.folder_name) as folder, ray_session(num_cpus):
        return run_experiment(config, make_plan(config), folder)


def sweep(
    path: str | Path, run_dir: str | Path | None = None, *, num_cpus: int | None = None, **overrides: Any
) -> pd.DataFrame:
    """Run the sweep in a YAML file and return its results as `load_results` does; Ray as for `run`."""
    from v2a_ray.experiments.sweep import load_sweep
    from v2a_ray.orchestration.cluster.session import ray_session
    from v2a_ray.orchestration.sweep.run_sweep import run_sweep
    from v2a_ray.result_folders import results_folder

    wanted = load_sweep(Path(path), _as_overrides(overrides))
    with results_folder(run_dir or Path("runs") / wanted.name) as folder, ray_session(num_cpus):
        run_sweep(wanted, folder)
        return load_results(folder)


def choose(
    path: str | Path,
    run_dir: str | Path | None = None,
    *,
    replay: bool = False,
    num_cpus: int | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Train `iql_target`, `v2a_supported`, `iql_mixed` and `iql_source` on a YAML file's experiment; choose one.

    By recorded data alone. The last two are left out where the source's episodes earn less than the target's. With
    `replay`, sources in whose simulators the target's recorded actions lead far from where they led are left out
    first (`replay_episodes`). Ray as for `run`. Returns the content of `choice.json`: `chosen` is the method,
    `trial` the name of its folder in `trials/` of the results, by default `runs/NAME-choice`.
    """
    from v2a_ray.experiments.choice import choice_sweep
    from v2a_ray.export.choice import choose as choose_policy
    from v2a_ray.orchestration.cluster.session import ray_session
    from v2a_ray.orchestration.sweep.candidates import train_candidates
    from v2a_ray.result_folders import results_folder

    wanted = choice_sweep(Path(path), _as_overrides(overrides))
    with results_folder(run_dir or Path("runs") / wanted.name) as folder:
        with ray_session(num_cpus):
            replays = train_candidates(wanted, folder, leave_out_far=replay)
        return choose_policy(folder, wanted.trials[0].config.seed, replays=replays).to_dict()


def load_results(folder: str | Path) -> pd.DataFrame:
    """The policies of a run or sweep, one row each: task, method, seed, axes, status, score, return, seconds, folder.

    Scores are means over the evaluation's episodes in the target, `*_std` their standard deviations; unfinished
    policies have none. Raises DataError for any other folder.
    """
    import pandas as pd

    from v2a_ray.experiments.finished import read_records
    from v2a_ray.report.comparison import tidy_rows
    from v2a_ray.result_folders import readable_folder

    return pd.DataFrame(tidy_rows(read_records(readable_folder(folder))))


def load_policy(folder: str | Path) -> LoadedPolicy:
    """The policy of a finished run or of a sweep's trial, an export, or a behaviour such as `hopper/stock:expert`."""
    from v2a_ray.experiments.plugins import load_installed
    from v2a_ray.export.find import find_policy

    load_installed()
    return LoadedPolicy(find_policy(str(folder)))


class LoadedPolicy:
    """A policy that acts on NumPy arrays.

    Attributes:
        domain: name of the domain that it was made for.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.domain = policy.domain.name

    def act(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """Actions in [-1, 1] for raw observations: (O,) to (A,), or (B, O) to (B, A)."""
        batch = np.atleast_2d(np.asarray(observation, dtype=np.float32))
        actions = np.asarray(self._policy.act(batch), dtype=np.float32)
        return actions[0] if np.ndim(observation) == 1 else actions


def methods() -> dict[str, str]:
    """Maps the name of every method, including those of installed plugins, to its one-line summary."""
    from v2a_ray.experiments.methods import METHODS
    from v2a_ray.experiments.plugins import load_installed

    load_installed()
    return {name: method.summary for name, method in METHODS.items()}


def make_env(domain: str) -> gymnasium.Env[Any, Any]:
    """The Gymnasium environment of a domain, for example `hopper/gravity-0.5`. Raises DomainError."""
    from v2a_ray.domains import parse_domain
    from v2a_ray.domains.environments import make_environment
    from v2a_ray.experiments.plugins import load_installed

    load_installed()
    return make_environment(parse_domain(domain))


def _as_overrides(overrides: Mapping[str, Any]) -> list[str]:
    """The overrides in the form of the command line, for the same parser."""
    return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
