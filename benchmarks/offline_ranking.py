"""How well numbers on held-out episodes rank policies: against returns in a simulator that no stage was shown.

    python -m benchmarks.offline_ranking --folder DIR            # 2 robots, 28 policies
    python -m benchmarks.offline_ranking --folder DIR --quick    # a few steps, to see that it runs

For each robot policies are trained on recordings alone (`domain: real`), some of them with a source of other
dynamics: methods times lengths of training, so that there are bad and good ones. Every policy is then rolled out in the
robot's simulator. Printed are Spearman's rank correlations of each number with the true return, with 95 % percentile
intervals of a bootstrap over policies, and what choosing by that number loses: the best true return less the chosen
one's, as a part of the range. The same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.modality_quality import roll_out as collected
from benchmarks.record import invocation, measured_on
from v2a_ray.data.config import SourceSpec
from v2a_ray.data.mixing.mixture import collection_requests
from v2a_ray.data.table.episodes import concatenate
from v2a_ray.data.table.folder import write_table
from v2a_ray.domains import parse_domain
from v2a_ray.domains.rollout import roll_out
from v2a_ray.engine.context import Job, fit_rows
from v2a_ray.evaluation.fitted_q_evaluation import hold_out
from v2a_ray.evaluation.offline import HELD_OUT
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.reading import resolve
from v2a_ray.export.policies import load_actor
from v2a_ray.files import read_json, write_json
from v2a_ray.settings.measures import OFFLINE_MEASURES, rank_score
from v2a_ray.stages.policy.training import fit_policy

Float = NDArray[np.float64]
ROBOTS = ("hopper", "walker2d")
METHODS = ("bc_target", "iql_target", "td3_bc_target", "cql_target", "bc_mixed", "iql_mixed", "iql_source")
STEPS = (200, 1500)
"""Update steps of short and of long training."""
CRITIC_STEPS = 2000
"""Of fitted Q evaluation: values settle in so many (`FittedQConfig.target_rate`); the default has more to spare."""
SOURCE_SHIFT = "gravity-0.5"
NUM_TRANSITIONS, NUM_EPISODES, NUM_RESAMPLES = 10_000, 10, 2000
RETURN_FILE = "true_return.json"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args(arguments)
    folder: Path = asked.folder.resolve()
    rows = {robot: _policies(robot, folder / robot, asked.quick) for robot in ROBOTS}
    print(f"`{invocation()}` on {measured_on()}\n")
    print("\n".join(table(rows)))


def table(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """A Markdown table with a row per robot and number; `rows` have the numbers and the true return of each policy."""
    lines = ["| robot | policies | number | Spearman [95 %] | lost by choosing |", "|---|---|---|---|---|"]
    for robot, policies in rows.items():
        returns = np.array([each["true_return"] for each in policies])
        for name in OFFLINE_MEASURES:
            scores = np.array([rank_score(name, each[name]) for each in policies])
            value, low, high = correlation(scores, returns)
            lost = (returns.max() - returns[scores.argmax()]) / max(float(np.ptp(returns)), 1e-9)
            lines.append(f"| {robot} | {len(policies)} | `{name}` | {value:.2f} [{low:.2f}, {high:.2f}] | {lost:.0%} |")
    return lines


def correlation(scores: Float, returns: Float, seed: int = 0) -> tuple[float, float, float]:
    """Spearman's rank correlation, and its 95 % percentile interval over resampled policies."""
    generator = np.random.default_rng(seed)
    drawn = (generator.integers(len(scores), size=len(scores)) for _ in range(NUM_RESAMPLES))
    # Of a resample of one policy alone there is no correlation.
    many = [_spearman(scores[each], returns[each]) for each in drawn if len(set(each.tolist())) > 2]
    low, high = np.nanpercentile(many, (2.5, 97.5))
    return _spearman(scores, returns), float(low), float(high)


def _spearman(scores: Float, returns: Float) -> float:
    return float(spearmanr(scores, returns).statistic)


def _policies(robot: str, folder: Path, quick: bool) -> list[dict[str, Any]]:
    """The numbers of every policy of a robot, and its true return; what is there already is not computed again."""
    tables = _tables(robot, folder, quick)
    rows = []
    for method, num_steps in itertools.product(METHODS, (20, 40) if quick else STEPS):
        output = folder / f"{method}-{num_steps}"
        if not (output / RETURN_FILE).exists():
            config = _experiment(robot, method, num_steps, quick)
            _train(config, tables, output)
            act = load_actor(output / "actor.safetensors").act_numpy
            returns, _ = roll_out(act, robot, 2 if quick else NUM_EPISODES, seed=1000, num_threads=1)
            write_json(output / RETURN_FILE, {"true_return": float(returns.mean())})
            print(f"{robot} {method} {num_steps}: {returns.mean():,.0f}", file=sys.stderr, flush=True)
        numbers = read_json(output / "evaluation.json")
        row = {key: numbers[key] for key in OFFLINE_MEASURES}
        rows.append({"policy": output.name, **read_json(output / RETURN_FILE), **row})
    return rows


def _experiment(robot: str, method: str, num_steps: int, quick: bool) -> ExperimentConfig:
    """An experiment that is told nothing of the robot's simulator."""
    spec = parse_domain(robot).robot_spec
    sizes = {"observation_dim": spec.observation_dim, "action_dim": spec.action_dim}
    return resolve(
        {
            "name": "offline_ranking",
            "method": method,
            "target": {"domain": "real", **sizes, "path": "target"},
            "sources": [{"domain": "real", **sizes, "path": "source", "name": "shifted"}],
            "policy": {"num_steps": num_steps},
            "evaluation": {"interval_steps": 0},
            "offline": {"num_steps": 50 if quick else CRITIC_STEPS},
        }
    )


def _tables(robot: str, folder: Path, quick: bool) -> dict[str, Path]:
    """Role to the folder of what a policy is trained on: recordings of the robot, and of a shifted one."""
    made = {role: folder / "data" / role for role in ("target", "source", "target_rows", "source_rows")}
    config = _experiment(robot, METHODS[0], 1, quick)
    for seed, (role, domain) in enumerate((("target", robot), ("source", f"{robot}/{SOURCE_SHIFT}"))):
        if made[f"{role}_rows"].exists():
            continue
        count = 1000 if quick else NUM_TRANSITIONS
        asked = SourceSpec(
            domain=domain, policy_domain=robot, behavior="medium-replay", num_transitions=count, seed=seed
        )
        table = concatenate([collected(request) for request in collection_requests(asked)])
        if role == "target":
            table, unseen = hold_out(table, config.offline.held_out_fraction, config.offline.seed)
            write_table(unseen, made[role] / HELD_OUT, robot=robot)
        write_table(table, made[role] / "table", robot=robot)
        made[f"{role}_rows"].mkdir(parents=True)
        fit_rows(Job(config, {"table": made[role]}, made[f"{role}_rows"], folder / "work"))
    return made


def _train(config: ExperimentConfig, inputs: Mapping[str, Path], output: Path) -> None:
    """The policy stage, in this process."""
    output.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as work:
        fit_policy(Job(config, inputs, output, Path(work)))


if __name__ == "__main__":
    main()
