"""Do sources come from the domains that they say, and are those domains different?

Names are compared by their models (`domains.checks`), recordings by re-simulation (`domains.fidelity`): a sample of
every source in its own domain and in those of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from v2a_ray.data.checks.registry import found
from v2a_ray.data.checks.rewards import check_rewards_against_simulator
from v2a_ray.data.findings import Finding, place
from v2a_ray.data.table import EpisodeTable
from v2a_ray.domains import Domain
from v2a_ray.domains.checks import check_robot
from v2a_ray.domains.fidelity import Predictions, predict_table
from v2a_ray.errors import DomainError

# Steps recorded in float32 are reproduced to 1e-6; in another domain the median is above 1e-3.
REPRODUCED = 1e-4
# A domain fits as well only if it does where the two may differ, such as at a joint's limit; impacts are few.
FITTING_QUANTILE = 0.95
SAMPLE_ROWS = 200


def identical_domains(domains: list[Domain]) -> list[tuple[Domain, Domain]]:
    """Pairs of `domains` that are the same dynamics wherever one looks, such as two frictions below the floor's.

    Only domains of one robot and physics are compared, and none against itself.
    """
    pairs = []
    groups: dict[Domain, list[Domain]] = {}
    for domain in dict.fromkeys(each.base for each in domains):
        groups.setdefault(replace(domain, shifts=()), []).append(domain)
    for stock, members in groups.items():
        if len(members) > 1:
            others = [domain for domain in members if domain != stock]
            check = check_robot(stock.robot, stock.physics, domains=[stock, *others])
            by_name = {domain.shift_name: domain for domain in members}
            pairs += [
                (by_name[pair.first], by_name[pair.second])
                for pair in check.identical
                if pair.first in by_name and pair.second in by_name
            ]
    return pairs


def check_same_names(domains: Mapping[str, Domain]) -> tuple[list[Finding], set[frozenset[Domain]]]:
    """Warn about sources whose domains are one under two names; also those pairs of domains.

    Args:
        domains: name of the source to its domain.
    """
    pairs = identical_domains(list(domains.values()))
    findings = []
    for first, second in pairs:
        firsts = [name for name, domain in domains.items() if domain.base == first]
        seconds = [name for name, domain in domains.items() if domain.base == second]
        message = f"{first} is the same dynamics as {second}, which {', '.join(seconds)} was recorded in"
        findings.append(found("same_dynamics", message, place(", ".join(firsts))))
    return findings, {frozenset(pair) for pair in pairs}


@dataclass(frozen=True)
class Fit:
    """How a domain predicts a sample of a source: quantiles of the L-infinity error."""

    median: float
    high: float
    predictions: Predictions

    @property
    def reproduces(self) -> bool:
        return self.median < REPRODUCED


def check_recordings(
    tables: Mapping[str, EpisodeTable], domains: Mapping[str, Domain], identical: set[frozenset[Domain]]
) -> list[Finding]:
    """Re-simulate a sample of every source in its domain and the others'.

    A source whose domain cannot be re-simulated (its actions were noisy, or no row has a known state) is left out. A
    source that neither its own domain nor any other here reproduces passes: it may be real, or of another simulator.
    """
    distinct = list(dict.fromkeys(domains.values()))
    findings = []
    for name, own in domains.items():
        table = tables[name]
        fits = {domain: fit for domain in distinct if (fit := _fit(table, domain)) is not None}
        others = {
            domain: fit
            for domain, fit in fits.items()
            if domain != own and frozenset({domain.base, own.base}) not in identical
        }
        mine = fits.get(own)
        if mine is not None and mine.reproduces:
            rows, expected = mine.predictions.rows, mine.predictions.reward
            recorded = table.reward[rows].astype(np.float64)
            findings += check_rewards_against_simulator(name, own.name, expected, recorded)
            findings += [
                found(
                    "same_dynamics",
                    f"{domain} predicts these data as well as {own}, which they say they were recorded in "
                    f"(95 % of {len(rows)} sampled steps within {max(fit.high, mine.high):.0e})",
                    place(name),
                    "where this behaviour goes the two do not differ; take other data if it is to be told apart",
                )
                for domain, fit in others.items()
                if fit.high < REPRODUCED
            ]
        elif mine is not None:
            findings += [
                found(
                    "wrong_domain",
                    f"says {own}, which is off by {mine.median:.0e} in the median step, but {domain} reproduces it "
                    f"({fit.median:.0e})",
                    place(name),
                )
                for domain, fit in others.items()
                if fit.reproduces
            ]
    return findings


def _fit(table: EpisodeTable, domain: Domain) -> Fit | None:
    """None where the domain cannot predict these data at all."""
    try:
        predictions = predict_table(table, domain, SAMPLE_ROWS)
    except DomainError:
        return None
    errors = predictions.errors(table)
    return Fit(float(np.median(errors)), float(np.quantile(errors, FITTING_QUANTILE)), predictions)
