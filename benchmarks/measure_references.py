"""Measures the reference returns of named domains without published ones, and writes them into the package.

Random: the uniform policy. Expert: the robot's packaged `expert` with the highest return in the domain over a few
episodes, measured again over other episodes, so that the selection does not bias the result. Run it again after adding
behaviours or changing the catalogue.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.record import invocation, versions
from v2a_ray.domains import Domain, catalogue, parse_domain
from v2a_ray.domains.behaviors import BehaviorPolicy, evaluate_policy, list_behaviors, load_behavior
from v2a_ray.domains.references import OWN_REFERENCES, published_references, references
from v2a_ray.files import read_json, write_json

BEHAVIOR = "expert"
RANDOM_SEED, SCREENING_SEED, FINAL_SEED = 10_000, 20_000, 30_000


def measure(domain: Domain, policy_domains: Sequence[str], episodes: dict[str, int]) -> dict[str, Any]:
    """The entry of one domain in `own_references.json`; "expert" is None if the robot has no packaged expert."""
    random = evaluate_policy(load_behavior(domain, "random"), domain, episodes["random"], RANDOM_SEED)
    best, best_return = "", -np.inf
    for name in policy_domains:
        screened = evaluate_policy(_expert(name), domain, episodes["screening"], SCREENING_SEED).mean()
        if screened > best_return:
            best, best_return = name, screened
    expert = None
    if best:
        returns = evaluate_policy(_expert(best), domain, episodes["expert"], FINAL_SEED)
        expert = {"policy_domain": best, "behavior": BEHAVIOR, **_summary(returns)}
    return {"random": _summary(random), "expert": expert}


def _expert(policy_domain: str) -> BehaviorPolicy:
    return load_behavior(policy_domain, BEHAVIOR)


def _summary(returns: NDArray[Any]) -> dict[str, Any]:
    mean, std = round(float(returns.mean()), 2), round(float(returns.std(ddof=1)), 2)
    return {"return_mean": mean, "return_std": std, "num_episodes": len(returns)}


def main() -> None:
    """Measure every domain without published references, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--robot", help="only this robot's domains; the others keep what they have")
    parser.add_argument("--random-episodes", type=int, default=20)
    parser.add_argument("--screening-episodes", type=int, default=3, help="per packaged expert")
    parser.add_argument("--expert-episodes", type=int, default=10)
    parser.add_argument("--num-processes", type=int, default=2)
    arguments = parser.parse_args()
    domains = [domain for domain in catalogue(arguments.robot) if published_references(domain) is None]
    experts = [row["domain"] for row in list_behaviors() if row["behavior"] == BEHAVIOR]
    by_robot = {
        robot: [name for name in experts if parse_domain(name).robot == robot]
        for robot in {domain.robot for domain in domains}
    }
    episodes = {name: getattr(arguments, f"{name}_episodes") for name in ("random", "screening", "expert")}
    with ProcessPoolExecutor(arguments.num_processes) as pool:
        policies = [by_robot[domain.robot] for domain in domains]
        found = track(pool.map(partial(measure, episodes=episodes), domains, policies), "measuring", len(domains))
        measured = {f"{domain.robot}/{domain.shift_name}": each for domain, each in zip(domains, found, strict=True)}
    about = {"command": invocation(), "versions": versions()}
    names = [f"{domain.robot}/{domain.shift_name}" for domain in catalogue()]
    kept = {name: value for name, value in _recorded().items() if name in names}
    merged = kept | measured
    write_json(OWN_REFERENCES, {**about, "domains": {name: merged[name] for name in names if name in merged}})
    for domain in domains:
        between = references(domain)
        print(f"{domain.name}: {between.random_return:.1f} to {between.expert_return:.1f} ({between.source})")


def _recorded() -> dict[str, Any]:
    return read_json(OWN_REFERENCES)["domains"] if OWN_REFERENCES.exists() else {}


if __name__ == "__main__":
    main()
