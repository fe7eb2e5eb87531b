"""Compares methods from the records of runs and sweeps, for pages and tables of results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import yaml

from v2a_ray.errors import ConfigError
from v2a_ray.evaluation.aggregates import NUM_RESAMPLES, Estimate, Float, improvement
from v2a_ray.evaluation.interval import interquartile_mean, with_spread
from v2a_ray.experiments.finished import PolicyRecord
from v2a_ray.report.offline_text import offline_sentences
from v2a_ray.settings.base import leaves
from v2a_ray.settings.measures import RANK_SCORE, score_title

MISSING = "–"


@dataclass(frozen=True)
class Comparison:
    """Policies of several methods and tasks.

    Attributes:
        records: finished and unfinished policies; a policy in two folders counts once.
        baseline: the method that the others are compared with, if any.
    """

    records: Sequence[PolicyRecord]
    baseline: str | None = None

    @property
    def finished(self) -> list[PolicyRecord]:
        """The records with a score."""
        return [record for record in self.records if record.score is not None]

    @cached_property
    def tasks(self) -> list[str]:
        """Tasks in the order of the records."""
        return list(dict.fromkeys(record.task for record in self.finished))

    @cached_property
    def methods(self) -> list[str]:
        """Methods by interquartile mean, highest first; methods without one come last, by their mean."""
        names = dict.fromkeys(record.method for record in self.finished)

        def order(method: str) -> tuple[bool, float]:
            known = self.middles.get(method)
            scores = np.concatenate([self.scores(method, task) for task in self.tasks])
            return known is None, -(known.value if known else float(scores.mean()))

        return sorted(names, key=order)

    @property
    def score_title(self) -> str:
        """What scores are, in words."""
        return " or ".join(dict.fromkeys(score_title(record.result["target"]) for record in self.finished))

    def scores(self, method: str, task: str) -> Float:
        """(S,): scores of the method's seeds in one task."""
        mine = [record.score for record in self.finished if (record.method, record.task) == (method, task)]
        return np.asarray(mine)

    def strata(self, method: str) -> list[Float] | None:
        """Scores task by task; None if a task has none, because methods would be compared on different tasks."""
        found = [self.scores(method, task) for task in self.tasks]
        return found if all(len(scores) for scores in found) else None

    @cached_property
    def middles(self) -> dict[str, Estimate]:
        """Interquartile mean of every method that has scores in all tasks."""
        found = {name: self.strata(name) for name in dict.fromkeys(record.method for record in self.finished)}
        return {
            name: Estimate(*interquartile_mean(strata, num_resamples=NUM_RESAMPLES))
            for name, strata in found.items()
            if strata
        }

    @cached_property
    def improvements(self) -> dict[str, Estimate]:
        """Probability of improvement over the baseline, of every other method that has scores in all tasks."""
        theirs = self.strata(self.baseline) if self.baseline else None
        if theirs is None:
            return {}
        others = {name: self.strata(name) for name in self.methods if name != self.baseline}
        return {name: improvement(mine, theirs) for name, mine in others.items() if mine}

    def table(self) -> Iterator[list[str]]:
        """Header and a row per method."""
        yield [
            "method",
            *self.tasks,
            "IQM [95 %]",
            *([f"P(better than {self.baseline}) [95 %]"] if self.baseline else []),
        ]
        for method in self.methods:
            cells = [self._cell(self.scores(method, task)) for task in self.tasks]
            middle = [in_words(self.middles.get(method), 1)]
            better = [in_words(self.improvements.get(method), 2)] if self.baseline else []
            yield [method, *cells, *middle, *better]

    @staticmethod
    def _cell(scores: Float) -> str:
        return f"{with_spread(scores, 1)} (n={len(scores)})" if len(scores) else MISSING

    def failures(self) -> list[tuple[str, str, str, str]]:
        """Method, task, seed and why, of every policy without a score."""
        unscored = "finished; its target has no reference returns"
        return [
            (record.method, record.task, str(record.seed), unscored if record.finished else record.status)
            for record in self.records
            if record.score is None
        ]

    def stages(self) -> list[tuple[str, int, int, float]]:
        """Stage, artifacts computed, artifacts found in the store, and seconds that were spent on all of them."""
        seconds: dict[str, dict[str, float]] = {}
        computed: set[str] = set()
        for record in self.finished:
            for stage in record.result["stages"]:
                place = str(stage["artifact"])
                seconds.setdefault(str(stage["name"]).split("/")[0], {})[place] = float(stage["seconds"])
                computed |= set() if stage["cached"] else {place}
        return [
            (name, sum(each in computed for each in of), sum(each not in computed for each in of), sum(of.values()))
            for name, of in seconds.items()
        ]

    def settings(self) -> tuple[str, list[list[str]]]:
        """The common settings of all finished policies as YAML, and a table of the differing ones."""
        flat = [leaves(record.result["config"]) for record in self.finished]
        keys = list(dict.fromkeys(key for each in flat for key in each))
        varying = [key for key in keys if any(each.get(key) != flat[0].get(key) for each in flat)]
        common = {key: flat[0][key] for key in keys if key not in varying}
        rows = [["policy", *varying]]
        for record, each in zip(self.finished, flat, strict=True):
            rows.append([record.folder.name, *(_in_words(each.get(key, "")) for key in varying)])
        return yaml.safe_dump(common, sort_keys=False, allow_unicode=True), rows

    def versions(self) -> dict[str, str]:
        """Versions of Python and packages; all of them if policies used different ones."""
        found: dict[str, dict[str, None]] = {}
        for record in self.finished:
            for name, version in record.result.get("versions", {}).items():
                found.setdefault(name, {})[str(version)] = None
        return {name: ", ".join(versions) for name, versions in found.items()}

    def summary(self) -> list[str]:
        """Sentences that summarise the runs."""
        done, configs = self.finished, [record.result["config"] for record in self.finished]
        left = len(self.records) - len(done)
        seeds = sorted({record.seed for record in done})
        steps = sorted({int(config["policy"]["num_steps"]) for config in configs})
        offline = [record for record in done if RANK_SCORE in record.result["target"]]
        return [
            f"{_count(done, 'policy', 'policies')} of {_count(self.methods, 'method')} were trained on "
            f"{_count(self.tasks, 'task')} with {_count(seeds, 'seed')}"
            + (f"; {left} more did not finish." if left else "."),
            f"Each was trained for {_span(steps)} update steps.",
            *(_rolled_out([record for record in done if record not in offline])),
            *(offline_sentences([record.result["target"] for record in offline])),
        ]


def _in_words(value: object) -> str:
    """A setting for a cell; of a list of parts, such as sources, only what they set."""
    if isinstance(value, list):
        return "; ".join(map(_in_words, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_in_words(each)}" for key, each in value.items() if each is not None)
    return str(value)


def _rolled_out(records: Sequence[PolicyRecord]) -> list[str]:
    """How policies were evaluated in simulators."""
    if not records:
        return []
    targets = dict.fromkeys(record.result["config"]["target"]["domain"] for record in records)
    episodes = sorted({int(record.result["target"]["num_episodes"]) for record in records})
    return [
        f"They acted for {_span(episodes)} episodes in {', '.join(targets)}. A score is the mean return over these "
        "episodes, on the scale where a random policy has 0 and an expert 100."
    ]


def compare(records: Sequence[PolicyRecord], baseline: str | None = None) -> Comparison:
    """The comparison of these policies. Raises ConfigError: none is finished, or the baseline is not among them."""
    distinct: dict[str, PolicyRecord] = {}
    for record in records:
        places = {stage["name"]: stage["artifact"] for stage in record.result.get("stages", [])}
        distinct.setdefault(str(places.get("policy", record.folder.resolve())), record)
    comparison = Comparison(list(distinct.values()), baseline)
    if not comparison.methods and any(record.finished for record in records):
        raise ConfigError(
            "no policy has a score",
            where="report",
            remedy="give the target's environment or robot its references (`v2a domains references --measure`)",
        )
    if not comparison.methods:
        raise ConfigError("no policy is finished", where="report", remedy="wait for one, or resume the sweep")
    if baseline is not None and baseline not in comparison.methods:
        raise ConfigError(
            f"no method {baseline!r}", where="--baseline", remedy=f"one of {', '.join(comparison.methods)}"
        )
    return comparison


def in_words(estimate: Estimate | None, digits: int) -> str:
    """`62.9 [58.1, 66.0]`; without an interval the value alone."""
    if estimate is None:
        return MISSING
    interval = "" if np.isnan(estimate.low) else f" [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
    return f"{estimate.value:.{digits}f}{interval}"


def tidy_rows(records: Sequence[PolicyRecord]) -> list[dict[str, Any]]:
    """One row per policy with what one compares, under short names; missing values are None."""
    rows = []
    for record in records:
        target: Mapping[str, Any] = record.result.get("target", {})
        axes = {name: label for name, label in record.labels.items() if name not in ("method", "seed")}
        rows.append(
            {
                "task": record.task,
                "method": record.method,
                "seed": record.seed,
                **axes,
                "status": record.status,
                "score": record.score,
                "score_is": score_title(target) if record.result else None,
                "score_std": target.get("normalized_score_std"),
                "return": target.get("return_mean"),
                "return_std": target.get("return_std"),
                "episodes": target.get("num_episodes"),
                "seconds": sum(stage["seconds"] for stage in record.result["stages"]) if record.result else None,
                "folder": str(record.folder),
            }
        )
    return rows


def _count(things: Sequence[Any], one: str, many: str = "") -> str:
    return f"{len(things):,} {one if len(things) == 1 else many or one + 's'}"


def _span(numbers: Sequence[int]) -> str:
    return f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"
