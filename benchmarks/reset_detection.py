"""How reliably are resets detected that a recording holds as next observations? The roll-outs chose no threshold.

    python -m benchmarks.reset_detection
    python -m benchmarks.reset_detection --robots ant --num-transitions 20000

Packaged behaviours act in the domain they were trained in and in others of their robot. In every recording some
episodes' last rows are given the next episode's reset as next observation, and lose their flags, which is what the
defect looks like. Printed per recording: rows with the defect, found, missed, wrongly found; in the same recording
without the defect, wrongly found; the lowest score of a defect and the highest of any other candidate. A row is found
that scores above `v2a_ray.data.checks.reset_rows.RESIDUAL_SCORE`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.checks.reset_rows import RESIDUAL_SCORE, ResetDetector, survey
from v2a_ray.data.collection.rolling import EpisodeCollector
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.segmentation import Rows
from v2a_ray.domains import parse_domain
from v2a_ray.errors import DomainError

DOMAINS = ("stock", "gravity-0.5", "friction-2", "otdf-morph", "otdf-kinematic", "wind-3", "action_noise-0.1")
BEHAVIORS = ("random", "medium", "expert")
LARGEST_SHARE = 0.5


@dataclass(frozen=True)
class TrialStatus:
    """What was found in one recording; `lowest` and `highest` are scores, NaN where there is none."""

    num_injected: int
    num_found: int
    num_wrong: int
    num_wrong_in_clean: int
    lowest: float
    highest: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robots", nargs="*", default=["hopper", "walker2d", "halfcheetah", "ant"])
    parser.add_argument("--num-transitions", type=int, default=6000, help="at least, per recording")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    header = ("recording", "injected", "found", "missed", "wrong", "wrong in clean", "lowest", "highest other")
    print(f"{header[0]:<48}" + "".join(f"{name:>15}" for name in header[1:]), flush=True)
    statuses = []
    for name, table in recordings(arguments.robots, arguments.num_transitions, arguments.seed):
        outcome = judge(table, np.random.default_rng(arguments.seed))
        statuses.append(outcome)
        missed = outcome.num_injected - outcome.num_found
        numbers = (outcome.num_injected, outcome.num_found, missed, outcome.num_wrong, outcome.num_wrong_in_clean)
        scores = (outcome.lowest, outcome.highest)
        print(f"{name:<48}" + "".join(f"{number:>15}" for number in numbers) + "".join(f"{s:>15.0f}" for s in scores))
    found, injected = (sum(getattr(each, name) for each in statuses) for name in ("num_found", "num_injected"))
    wrong = sum(each.num_wrong for each in statuses)
    clean = sum(each.num_wrong_in_clean for each in statuses)
    print(
        f"\n{len(statuses)} recordings, threshold {RESIDUAL_SCORE:.0f}: recall {found / injected:.4f} "
        f"({found} of {injected}), precision {found / (found + wrong):.4f}, {clean} wrong rows in clean recordings"
    )


def recordings(robots: list[str], num_transitions: int, seed: int) -> Iterator[tuple[str, EpisodeTable]]:
    """Recordings of packaged behaviours, the robot's stock one where a domain has none of its own."""
    for robot in robots:
        for shift in DOMAINS:
            try:
                domain = parse_domain(f"{robot}/{shift}")
            except DomainError:
                continue
            for behavior in BEHAVIORS:
                stock = parse_domain(robot)
                try:
                    collector = EpisodeCollector(domain, behavior, seed=seed)
                except DomainError:
                    collector = EpisodeCollector(domain, behavior, seed=seed, policy_domain=stock)
                indices, table = 0, None
                while table is None or (table.num_transitions < num_transitions and indices < 800):
                    indices = 8 if table is None else indices * 2
                    table = collector.collect(range(indices))
                collector.close()
                yield f"{domain.name} {behavior}", table


def judge(table: EpisodeTable, generator: np.random.Generator) -> TrialStatus:
    """Inject the defect at the ends of up to half of the episodes, and count what is found."""
    ends = table.offsets[1:-1] - 1
    chosen = np.sort(generator.choice(ends, max(1, int(LARGEST_SHARE * len(ends))), replace=False))
    chosen = chosen[: max(1, table.num_transitions // 500)]
    candidates, scores = _scored(_rows(table, chosen))
    _, clean_scores = _scored(_rows(table, np.empty(0, dtype=np.int64)))
    injected = np.isin(candidates, chosen)
    found = scores > RESIDUAL_SCORE
    others = np.concatenate([scores[~injected], clean_scores])
    is_candidate = np.isin(chosen, candidates)
    return TrialStatus(
        num_injected=len(chosen),
        num_found=int((found & injected).sum()),
        num_wrong=int((found & ~injected).sum()),
        num_wrong_in_clean=int((clean_scores > RESIDUAL_SCORE).sum()),
        lowest=float(scores[injected].min()) if is_candidate.all() else 0.0,
        highest=float(others.max()) if len(others) else float("nan"),
    )


def _rows(table: EpisodeTable, defects: NDArray[np.int64]) -> Rows:
    """The recording as a file has it, where `defects` arrive in the next episode's reset and end nothing."""
    following = table.next_observation.copy()
    following[defects] = table.observation[defects + 1]
    terminal, last = table.terminal_rows > 0, np.zeros(table.num_transitions, dtype=bool)
    last[table.offsets[1:] - 1] = True
    terminal[defects] = last[defects] = False
    numbers = np.arange(table.num_transitions)
    return Rows(table.observation, table.action, table.reward, following, terminal, last, numbers)


def _scored(rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    return ResetDetector(survey(rows, len(rows))).candidates(rows)


if __name__ == "__main__":
    main()
