"""Do rewards have one scale? Compared with the simulator if the domain is known, else between sources by regression.

A dynamics shift changes the transitions but not the reward function, so one function of (observation, action, next
observation) explains all sources of a robot, whatever their behaviour. A source whose rewards are a constant times this
function was scaled. Between 24 files of two robots, three shifts and random to expert behaviour, the constant of every
pair whose fit explains 90 % of the variance is 0.91 to 1.09, while the median |reward| differs 27-fold.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.checks.catalogue import found
from v2a_ray.data.checks.findings import Finding, place
from v2a_ray.data.table.episodes import EpisodeTable

Float = NDArray[np.float64]

# Tolerance for the simulator's rewards, which are exact.
EXACT_TOLERANCE = 1e-3
# If more than this share of rewards differ, they are not the simulator's. On 24 recorded files and 16 domains of our
# own, 200 steps each, the 95th percentile of the difference is 7e-6 and less.
FOREIGN_SHARE = 0.05
# Fewer steps cannot determine a line.
MIN_ROWS = 20
# Tolerated factor for another source's reward function, which is fitted.
FITTED_FACTOR = 1.3
EXPLAINED_VARIANCE = 0.9
FIT_ROWS = 2000


class Law(NamedTuple):
    """`recorded = factor * expected + offset`, and the part of the recorded variance that the line explains."""

    factor: float
    offset: float
    explained: float

    def __str__(self) -> str:
        sign = "+" if self.offset > 0 else "−"
        return f"{self.factor:.4g} times" + (
            "" if abs(self.offset) < EXACT_TOLERANCE else f" {sign} {abs(self.offset):.4g}"
        )


def fit_law(expected: Float, recorded: Float) -> Law | None:
    """The line through (expected, recorded), both (N,), fitted again without the 5 % that fit worst.

    None if all expected rewards are equal, because any factor fits then.
    """
    if expected.std() < 1e-9:
        return None
    kept = np.ones(len(expected), dtype=bool)
    for _ in range(2):
        with warnings.catch_warnings():
            # Rewards of any size are compared; the explained variance shows how good the fit is.
            warnings.simplefilter("ignore", np.exceptions.RankWarning)
            factor, offset = np.polyfit(expected[kept], recorded[kept], 1)
        residual = np.abs(recorded - factor * expected - offset)
        kept = residual <= np.quantile(residual, 0.95)
    variance = recorded[kept].var()
    explained = 1.0 - np.square(residual[kept]).mean() / variance if variance > 0 else 1.0
    return Law(float(factor), float(offset), float(explained))


class Paid(NamedTuple):
    """The simulator's and the recorded rewards of N steps; all (N,).

    Attributes:
        expected: the simulator's reward.
        recorded: the reward of the same row.
        following, preceding: the reward of the next and the previous row of the episode, NaN if there is none.
    """

    expected: Float
    recorded: Float
    following: Float
    preceding: Float

    @staticmethod
    def of(table: EpisodeTable, rows: NDArray[np.int64], expected: Float) -> Paid:
        """The steps `rows` of a table, with the simulator's rewards `expected` (N,)."""
        rewards = table.reward.astype(np.float64)
        following, preceding = np.append(rewards[1:], np.nan), np.append(np.nan, rewards[:-1])
        following[table.offsets[1:] - 1] = np.nan
        preceding[table.offsets[:-1]] = np.nan
        known = np.isfinite(rewards[rows])
        rows = rows[known]
        return Paid(expected[known], rewards[rows], following[rows], preceding[rows])

    def problem(self, domain: str) -> RewardProblem | None:
        """How the recorded rewards differ from those of `domain`; None if they agree or cannot be compared."""
        law = fit_law(self.expected, self.recorded) if len(self.expected) >= MIN_ROWS else None
        if law is None:
            return None
        if self.recorded.std() > 0 and _off(law, self.expected, self.recorded) <= FOREIGN_SHARE:
            if abs(law.factor - 1.0) < EXACT_TOLERANCE and abs(law.offset) < EXACT_TOLERANCE:
                return None
            return RewardProblem("reward_scale", f"rewards are {law} what {domain} pays for the same steps")
        own = _explained(self.expected, self.recorded)
        share = f"what {domain} pays for the same steps explains {own:.1%} of their variance"
        for rewards, which, remedy in (
            (self.following, "before", "move the rewards one row up, against the order of time"),
            (self.preceding, "after", "move the rewards one row down, in the order of time"),
        ):
            if _fits(self.expected, rewards):
                message = f"rewards are those of the row {which}: {share}, for the row {which} it explains all"
                return RewardProblem("rewards_unexplained", message, remedy)
        off = _off(law, self.expected, self.recorded) if self.recorded.std() > 0 else 1.0
        return RewardProblem("rewards_unexplained", f"{share}, and {off:.0%} of them get another reward")


class RewardProblem(NamedTuple):
    """A problem with rewards: the check that reports it, the message, and a more specific remedy."""

    check: Literal["reward_scale", "rewards_unexplained"]
    message: str
    remedy: str | None = None


def _off(law: Law, expected: Float, recorded: Float) -> float:
    """The share of rewards that deviate from the law."""
    residual = np.abs(recorded - law.factor * expected - law.offset)
    return float((residual > EXACT_TOLERANCE * recorded.std()).mean())


def _fits(expected: Float, recorded: Float) -> bool:
    """Whether nearly all rewards are as expected, at the same scale; NaN is ignored."""
    known = np.isfinite(recorded)
    expected, recorded = expected[known], recorded[known]
    law = fit_law(expected, recorded) if len(expected) >= MIN_ROWS else None
    return law is not None and recorded.std() > 0 and _off(law, expected, recorded) <= FOREIGN_SHARE


def _explained(expected: Float, recorded: Float) -> float:
    """R²: the part of the recorded variance that the best line through all rows explains."""
    if recorded.std() == 0:
        return 0.0
    return float(np.corrcoef(expected, recorded)[0, 1] ** 2)


def check_rewards_against_simulator(name: str, domain: str, paid: Paid) -> list[Finding]:
    """Compare the rewards of a source with those of its domain for the same steps."""
    problem = paid.problem(domain)
    if problem is None:
        return []
    return [found(problem.check, problem.message, place(name, field="reward"), problem.remedy)]


class RewardSample(NamedTuple):
    """Rows spread over a table: features (N, 2 O + 2), in which rewards are linear, and rewards (N,)."""

    features: Float
    rewards: Float


def check_rewards_between_sources(samples: Mapping[str, RewardSample]) -> list[Finding]:
    """Every source whose rewards have another scale than the source that most others agree with.

    A pair is skipped if no linear reward function explains both sources.
    """
    names = list(samples)
    laws = {name: _laws(samples[name], samples) for name in names}
    agreeing = {name: sum(law is not None and not _differs(law) for law in laws[name].values()) for name in names}
    reference = max(names, key=lambda name: agreeing[name])
    return [
        found(
            "reward_scale",
            f"rewards are about {law.factor:.2g} times those of {reference} for the same steps",
            place(name, field="reward"),
        )
        for name, law in laws[reference].items()
        if law is not None and _differs(law)
    ]


def _differs(law: Law) -> bool:
    return not 1.0 / FITTED_FACTOR < law.factor < FITTED_FACTOR


def sampled_rows(num_transitions: int) -> NDArray[np.int64]:
    """The rows of a table whose rewards are compared."""
    return np.linspace(0, num_transitions - 1, min(num_transitions, FIT_ROWS)).astype(np.int64)


def sample_rewards(table: EpisodeTable, rows: NDArray[np.int64]) -> RewardSample:
    """Those of the given rows of a table that are finite."""
    rows = rows[
        np.isfinite(table.observation[rows]).all(axis=1) & np.isfinite(table.next_observation[rows]).all(axis=1)
    ]
    rows = rows[table.arrival_recorded[rows]]
    rows = rows[np.isfinite(table.action[rows]).all(axis=1) & np.isfinite(table.reward[rows])]
    effort = np.square(table.action[rows].astype(np.float64)).sum(axis=1, keepdims=True)
    features = [table.observation[rows], table.next_observation[rows], effort, np.ones_like(effort)]
    return RewardSample(np.concatenate(features, axis=1, dtype=np.float64), table.reward[rows].astype(np.float64))


def _laws(own: RewardSample, samples: Mapping[str, RewardSample]) -> dict[str, Law | None]:
    """Per source, the relation of its rewards to the reward function fitted to `own`; None if it explains little."""
    features, rewards = own
    if len(rewards) < 2 * features.shape[1]:
        return dict.fromkeys(samples)
    weights = np.linalg.lstsq(features, rewards, rcond=None)[0]
    residual = np.abs(rewards - features @ weights)
    usual = residual <= np.quantile(residual, 0.95)
    weights = np.linalg.lstsq(features[usual], rewards[usual], rcond=None)[0]
    laws = {}
    for name, (others, recorded) in samples.items():
        law = fit_law(others @ weights, recorded) if len(recorded) else None
        laws[name] = law if law and law.explained > EXPLAINED_VARIANCE else None
    return laws
