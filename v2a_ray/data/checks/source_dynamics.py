"""Do sources come from the domains that they claim, and are those domains different?

Domains are compared by their models (`domains.checks`). Recordings are compared by re-simulating a sample of every
source in its own domain and in the domains of the others (`domains.fidelity`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.checks.catalogue import found
from v2a_ray.data.checks.findings import Finding, place
from v2a_ray.data.checks.rewards import Paid, check_rewards_against_simulator
from v2a_ray.data.fidelity.resimulation import predict_table
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.domains import Domain, RobotDomain
from v2a_ray.domains.catalogue_checks import check_robot
from v2a_ray.errors import DomainError

# Steps recorded in float32 are reproduced to 1e-6; in another domain the median is above 1e-3.
REPRODUCED = 1e-4
# Another domain fits as well only if it fits where the two may differ, such as at a joint's limit; impacts are few.
FITTING_QUANTILE = 0.95
SAMPLE_ROWS = 200


def identical_domains(domains: list[Domain]) -> list[tuple[Domain, Domain]]:
    """Pairs of `domains` with the same dynamics at all probes, such as two frictions below the floor's.

    Only domains of one robot of ours and physics are compared, and none against itself.
    """
    pairs: list[tuple[Domain, Domain]] = []
    groups: dict[RobotDomain, list[RobotDomain]] = {}
    for domain in dict.fromkeys(each.base for each in domains):
        if isinstance(domain, RobotDomain):
            groups.setdefault(domain.stock, []).append(domain)
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
    """Warn about sources whose domains have different names and the same dynamics. Returns those pairs too.

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
    """How well a domain predicts a sample of a source: quantiles of the L-infinity error, and rewards.

    Attributes:
        median, high: 50th and 95th percentile of the error.
        num_rows: steps sampled.
        paid: the domain's rewards, where they are known, beside the recorded ones.
    """

    median: float
    high: float
    num_rows: int
    paid: Paid

    @property
    def reproduces(self) -> bool:
        return self.median < REPRODUCED


def fit_domains(
    table: EpisodeTable, domains: Sequence[Domain], rows: NDArray[np.int64] | None = None
) -> dict[Domain, Fit]:
    """Re-simulate a sample of a table, or `rows` of it, in each domain.

    Domains that cannot predict these data at all are left out.
    """
    fits = {}
    for domain in domains:
        try:
            predictions = predict_table(table, domain, SAMPLE_ROWS, rows)
        except DomainError:
            continue
        errors = predictions.errors(table)
        fits[domain] = Fit(
            float(np.median(errors)),
            float(np.quantile(errors, FITTING_QUANTILE)),
            len(predictions.rows),
            predictions.paid(table),
        )
    return fits


def check_recordings(
    fits: Mapping[str, Mapping[Domain, Fit]], domains: Mapping[str, Domain], identical: set[frozenset[Domain]]
) -> list[Finding]:
    """Does every source fit its own domain, and no other?

    A source whose domain cannot be re-simulated (its actions were noisy, or no row has a known state) is skipped. A
    source that no domain here reproduces passes: it may come from a real robot or another simulator.

    Args:
        fits: name of the source to its fits in the domains of all sources.
        domains: name of the source to its own domain.
        identical: pairs of domains with the same dynamics.
    """
    findings = []
    for name, own in domains.items():
        others = {
            domain: fit
            for domain, fit in fits[name].items()
            if domain != own and frozenset({domain.base, own.base}) not in identical
        }
        mine = fits[name].get(own)
        if mine is not None and mine.reproduces:
            findings += check_rewards_against_simulator(name, own.name, mine.paid)
            findings += [
                found(
                    "same_dynamics",
                    f"{domain} predicts these data as well as {own}, which they are labelled with "
                    f"(95 % of {mine.num_rows} sampled steps within {max(fit.high, mine.high):.0e})",
                    place(name),
                    "the two do not differ in the recorded states; use other data if they have to be told apart",
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
