"""How well numbers on held-out episodes rank policies: against returns in a simulator that no stage was shown.

    python -m benchmarks.offline_ranking --folder DIR            # 2 robots, 28 policies
    python -m benchmarks.offline_ranking --folder DIR --quick    # a few steps, to see that it runs

For each robot a sweep trains policies on recordings alone (`domain: real`), some of them with a source of other
dynamics: methods times lengths of training, so that there are bad and good ones. Every policy is then rolled out in the
robot's simulator. Printed are Spearman's rank correlations of each number with the true return, with 95 % percentile
intervals of a bootstrap over policies, and what choosing by that number loses: the best true return less the chosen
one's, as a part of the range. The same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
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
from v2a_ray.experiments.finished import read_records
from v2a_ray.export.policies import open_trained
from v2a_ray.files import read_json, write_json
from v2a_ray.settings.measures import OFFLINE_MEASURES, rank_score

Float = NDArray[np.float64]
ROBOTS = ("hopper", "walker2d")
METHODS = ("bc_target", "iql_target", "td3_bc_target", "cql_target", "bc_mixed", "iql_mixed", "iql_source")
STEPS = (200, 1500)
"""Update steps of short and of long training."""
CRITIC_STEPS = 2000
"""Of fitted Q evaluation: values settle in so many (`FittedQConfig.target_rate`); the default has more to spare."""
SOURCE_SHIFT = "gravity-0.5"
NUM_TRANSITIONS, NUM_EPISODES, NUM_RESAMPLES = 10_000, 10, 2000
RETURNS_FILE = "returns.json"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args(arguments)
    folder: Path = asked.folder.resolve()
    rows = _policies(folder, asked.quick)
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


def _policies(folder: Path, quick: bool) -> dict[str, list[dict[str, Any]]]:
    """The numbers of every policy, by robot, and its true return, measured once."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep = folder / "sweep.yaml"
    sweep.write_text(yaml.safe_dump(_sweep(folder, quick), sort_keys=False))
    words = ["sweep", str(sweep), "--run-dir", str(folder / "sweep"), "--num-cpus", "1"]
    subprocess.run([sys.executable, "-m", "v2a_ray.cli.main", *words], check=True, stdout=sys.stderr)
    known = read_json(folder / RETURNS_FILE) if (folder / RETURNS_FILE).exists() else {}
    rows: dict[str, list[dict[str, Any]]] = {robot: [] for robot in ROBOTS}
    for record in (each for each in read_records(folder / "sweep") if each.finished):
        name, robot = record.folder.name, record.labels["robot"]
        if name not in known:
            act = open_trained(record.folder).actor.act_numpy
            known[name] = float(roll_out(act, robot, 2 if quick else NUM_EPISODES, seed=1000)[0].mean())
            write_json(folder / RETURNS_FILE, known)
        numbers: dict[str, Any] = {key: record.result["target"][key] for key in OFFLINE_MEASURES}
        rows[robot].append({"policy": name, "true_return": known[name], **numbers})
    return rows


def _sweep(folder: Path, quick: bool) -> dict[str, Any]:
    return {
        "name": "offline_ranking",
        "settings": {
            "store": str(folder / "store"),
            "evaluation": {"interval_steps": 0},
            "offline": {"num_steps": 50 if quick else CRITIC_STEPS},
        },
        "axes": {
            "robot": {robot: _data(robot, folder / robot, quick) for robot in ROBOTS},
            "method": list(METHODS),
            "policy.num_steps": [20, 40] if quick else list(STEPS),
        },
    }


def _data(robot: str, folder: Path, quick: bool) -> dict[str, Any]:
    """The settings of a target and a source that say nothing of their simulator; they are collected if missing."""
    spec = parse_domain(robot).robot_spec
    sizes = {"observation_dim": spec.observation_dim, "action_dim": spec.action_dim}
    for seed, (name, domain) in enumerate((("target", robot), ("source", f"{robot}/{SOURCE_SHIFT}"))):
        if not (folder / name).exists():
            count = 1000 if quick else NUM_TRANSITIONS
            asked = SourceSpec(
                domain=domain, policy_domain=robot, behavior="medium-replay", num_transitions=count, seed=seed
            )
            table = concatenate([collected(request) for request in collection_requests(asked)])
            write_table(table, folder / name, robot=robot)
    recorded = {"domain": "real", **sizes}
    source = recorded | {"path": str(folder / "source"), "name": "shifted"}
    return {"target": recorded | {"path": str(folder / "target")}, "sources": [source]}


if __name__ == "__main__":
    main()
