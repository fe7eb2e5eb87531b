"""The choice between the policies of a finished `choice_sweep`: the one that is worth the most in first states.

Worth is Q, by critics of each policy that are fitted to target and source, less a standard deviation over critics.
What takes the whole source is not trained where the source's episodes have a lower return than the target's: critics
that have seen more of the source than of the target would take it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from v2a_ray.data.fidelity.replays import Replays, far
from v2a_ray.errors import DataError
from v2a_ray.evaluation.fitted_q_evaluation import FittedQConfig
from v2a_ray.experiments.choice import CANDIDATES, CRITIC_STEPS
from v2a_ray.experiments.experiment import OfflineConfig
from v2a_ray.experiments.finished import PolicyRecord, read_records
from v2a_ray.export.find import find_policy
from v2a_ray.export.selection import Candidate, OnProgress, estimate, selection_data
from v2a_ray.files import write_json
from v2a_ray.outputs import MARK, new_file
from v2a_ray.settings.measures import MEASURE_WITH_SOURCE

CHOICE_FILE = "choice.json"


@dataclass(frozen=True)
class Choice:
    """The target alone, a filter, the mix or the source alone.

    Attributes:
        candidates: by method, which is also their name; what was left out is not among them.
        records: of the sweep, by method.
        starts_in_source, target_return, source_return: see `SelectionData`.
        seed: of the critics and of the held-out episodes.
        replays: of the target's episodes in the domains of the sources, the nearest first; what is `far` among them was
            left out of the source. Empty if nobody asked.
    """

    candidates: dict[str, Candidate]
    records: dict[str, PolicyRecord]
    starts_in_source: bool
    target_return: float
    source_return: float
    seed: int
    replays: Sequence[Replays] = ()

    @property
    def method(self) -> str:
        """The chosen one."""
        return max(self.candidates, key=lambda method: self.candidates[method].score)

    @property
    def left_out(self) -> list[str]:
        """The methods that were not to be chosen, whatever they would be worth."""
        return [method for method in CANDIDATES if method not in self.candidates]

    @property
    def far_sources(self) -> list[Replays]:
        """The sources that were left out because they replay far."""
        return far(self.replays)

    @property
    def folder(self) -> Path:
        """Of the chosen policy."""
        return self.records[self.method].folder

    def to_dict(self) -> dict[str, Any]:
        """The content of `choice.json`."""
        away = {each.domain for each in self.far_sources}
        return {
            "made_by": MARK,
            "chosen": self.method,
            "left_out": self.left_out,
            "replayed": [
                {
                    "domain": each.domain,
                    "steps": each.num_steps,
                    "distance": each.distance,
                    "left_out": each.domain in away,
                }
                for each in self.replays
            ],
            "returns": {"target": self.target_return, "source": self.source_return},
            "trial": self.folder.name,
            "critic_steps": CRITIC_STEPS,
            "seed": self.seed,
            "first_states_of": "source" if self.starts_in_source else "held-out target episodes",
            "policies": {method: candidate.to_dict() for method, candidate in self.candidates.items()},
        }


def choose(
    folder: Path,
    seed: int,
    on_progress: OnProgress = lambda name, step, num_steps: None,
    *,
    replays: Sequence[Replays] = (),
) -> Choice:
    """Fit critics for every policy of the sweep in `folder`, choose, and write `choice.json` there.

    `replays` is what `train_candidates` returned.

    Raises DataError if one of them is not finished, or without rewards.
    """
    records = {record.labels["method"]: record for record in read_records(folder)}
    for method, record in records.items():
        if not record.finished:
            raise DataError(
                f"{method} is {record.status}, so nothing can be chosen",
                where=str(folder),
                remedy=f"the same command, or v2a sweep --resume {folder}",
            )
    policies = [find_policy(str(record.folder)) for record in records.values()]
    data = selection_data(policies, None, with_source=True)
    found = estimate(
        policies,
        data,
        FittedQConfig(num_steps=CRITIC_STEPS),
        measure=MEASURE_WITH_SOURCE,
        held_out_fraction=OfflineConfig().held_out_fraction,
        seed=seed,
        num_true_episodes=0,
        on_progress=on_progress,
    )
    by_name = {candidate.name: candidate for candidate in found}
    candidates = {
        method: replace(by_name[policy.name], name=method) for method, policy in zip(records, policies, strict=True)
    }
    returns = data.target_return, data.source_return
    choice = Choice(candidates, records, data.starts_in_source, *returns, seed, replays)
    with new_file(folder / CHOICE_FILE) as partial:
        write_json(partial, choice.to_dict())
    return choice
