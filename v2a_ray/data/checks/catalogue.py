"""All data checks: name, default severity, meaning and remedy.

A user may change the severity of a check to `error`, `warning` or `ignore`, in an experiment
(`checks: {action_bounds: warning}`) or on the command line (`--check action_bounds=warning`). The severity decides how
a finding is reported. It does not change the repairs of a reader, such as dropping a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast, get_args

from v2a_ray.data.checks.findings import Finding, Severity
from v2a_ray.data.config import CheckName, CheckSeverity
from v2a_ray.errors import ConfigError

Severities = Mapping[CheckName, CheckSeverity]


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: as written in settings and findings.
        severity: of its findings, unless the user says otherwise.
        meaning: the fact that the check reports.
        remedy: what the user can do.
    """

    name: CheckName
    severity: Severity
    meaning: str
    remedy: str


_ALL = (
    Check(
        "dimensions",
        "error",
        "observations or actions are not as wide as the robot's",
        "use data of that robot, or name the robot that fits",
    ),
    Check("finite", "error", "a value is NaN or infinite", "remove these rows, or record them again"),
    Check(
        "action_bounds",
        "error",
        "an action is outside [-1, 1]",
        "scale the actions to [-1, 1], as the environment takes them",
    ),
    Check(
        "unwritten",
        "error",
        "rows are zero in every field, which never happens to a moving robot",
        "cut the arrays to the rows that were recorded",
    ),
    Check(
        "alignment",
        "error",
        "a next observation is not the observation of the following step of its episode",
        "end the episode there, or store the rows in the order of time",
    ),
    Check("repeated", "warning", "transitions occur more than once", "expected only of draws with replacement"),
    Check(
        "unordered",
        "warning",
        "transitions are not in order of time",
        "usable as a target; a source needs whole episodes",
    ),
    Check(
        "reset_as_next",
        "warning",
        "a row's next observation is the reset of another episode",
        "nothing: they were dropped and their episodes end as truncated one step earlier",
    ),
    Check(
        "terminal_reset_as_next",
        "warning",
        "a terminal row's next observation is the reset of another episode",
        "nothing: they were kept as terminal steps without a recorded arrival, and no dynamics model is fitted to them",
    ),
    Check(
        "next_observation_repeated",
        "warning",
        "the last row of an episode that was cut repeats its observation as its next observation",
        "nothing: they were dropped, because the state that they arrived in was not recorded",
    ),
    Check(
        "episode_too_long",
        "warning",
        "an episode is longer than the robot's time limit, so two episodes were joined by a step that never happened",
        "record `timeouts`; the episodes were cut at the limit and the joining rows dropped",
    ),
    Check(
        "next_observation_derived",
        "info",
        "next observations were not recorded and are taken from the following row",
        "",
    ),
    Check(
        "episode_ends_unknown",
        "warning",
        "nothing says where a time limit ended an episode",
        "record timeouts or next_observations",
    ),
    Check("episode_unfinished", "info", "recording stopped in the middle of an episode", ""),
    Check("episodes_missing", "warning", "episodes that the dataset lists are not in it", "download or copy it again"),
    Check("rows_moved", "info", "rows of one episode lay apart and were brought together", ""),
    Check("videos_ignored", "info", "pictures lie beside the recording, and are not read", ""),
    Check("fewer", "warning", "there are fewer transitions than asked for", "lower num_transitions"),
    Check(
        "terminal_but_healthy",
        "warning",
        "a step is terminal although the robot is healthy in the next state",
        "mark it as a timeout: a policy would learn that nothing follows",
    ),
    Check(
        "unhealthy_not_terminal",
        "warning",
        "a step is not terminal although the robot has fallen",
        "end the episode there with a terminal, as the environment of the evaluation does",
    ),
    Check(
        "time_limit_as_terminal",
        "warning",
        "a step is marked as terminal where the time limit ended a healthy robot's episode",
        "store these ends as timeouts: a policy would learn that nothing follows",
    ),
    Check(
        "terminal_continues",
        "warning",
        "steps are terminal although the recording goes on, as in D4RL's AntMaze while the ant is at its goal",
        "keep the first terminal step of each run of them: the others are episodes of one step",
    ),
    Check(
        "reward_scale",
        "warning",
        "rewards have another scale than the domain's, or than the other sources'",
        "multiply them back: policies and advantages compare rewards of all sources",
    ),
    Check(
        "rewards_unexplained",
        "warning",
        "rewards differ from those that the domain's simulator gives for the same steps",
        "record them again, or compute them from the steps: a policy learns what rewards say",
    ),
    Check(
        "duplicate",
        "warning",
        "two sources hold the same transitions, whatever their names",
        "leave one of the two out of the mix",
    ),
    Check(
        "same_dynamics",
        "warning",
        "two domains with different names have the same dynamics, in general or in all recorded states",
        "count them as one domain when you draw conclusions about heterogeneity",
    ),
    Check(
        "wrong_domain",
        "warning",
        "data were recorded in another domain than their label says",
        "correct the label; `v2a data fidelity` searches all domains for the right one",
    ),
)
CHECKS: Mapping[str, Check] = {check.name: check for check in _ALL}


def found(check: CheckName, message: str, where: str, remedy: str | None = None) -> Finding:
    """A finding of a registered check with its default severity, and with its default remedy unless one is given."""
    entry = CHECKS[check]
    return Finding(check, entry.severity, message, where, entry.remedy if remedy is None else remedy)


def regrade(findings: Sequence[Finding], severities: Severities) -> list[Finding]:
    """The findings with the user's severities, without the ignored ones."""
    result = []
    for finding in findings:
        severity = severities.get(cast(CheckName, finding.check))
        if severity is None:
            result.append(finding)
        elif severity != "ignore":
            result.append(replace(finding, severity=severity))
    return result


def parse_severities(assignments: Sequence[str]) -> dict[CheckName, CheckSeverity]:
    """`["action_bounds=warning"]` as a mapping. Raises ConfigError naming the checks or severities that exist."""
    result: dict[CheckName, CheckSeverity] = {}
    for assignment in assignments:
        name, separator, severity = assignment.partition("=")
        where = f"--check {assignment}"
        if name not in CHECKS:
            raise ConfigError(f"no check named {name!r}", where=where, remedy=f"one of {', '.join(CHECKS)}")
        if not separator or severity not in get_args(CheckSeverity):
            raise ConfigError(
                f"{severity!r} is no severity", where=where, remedy=f"{name}= {', '.join(get_args(CheckSeverity))}"
            )
        result[cast(CheckName, name)] = cast(CheckSeverity, severity)
    return result
