"""The policy stage: the policy, and its evaluation in the target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from v2a_ray.engine.keys import moving
from v2a_ray.engine.rates import Cost, Tables, robot_of
from v2a_ray.engine.stage import BOTH_ROWS, TABLES, Request, Stage, layers, prepared
from v2a_ray.settings.base import DeviceName

if TYPE_CHECKING:
    from v2a_ray.experiments.experiment import ExperimentConfig
    from v2a_ray.stages.policy.config import PolicyConfig


def filtered_columns(config: ExperimentConfig) -> list[str]:
    """The columns of the source table that the policy reads; other columns are not computed."""
    policy = config.policy
    if not policy.uses_source:
        return []
    if not policy.filter.needs_score and policy.filter.weight == "one":
        return ["alignment"] if policy.reward_correction else []
    kinds = {"advantage": config.advantage.kind, "alignment": config.alignment.kind}
    return [name for name, kind in kinds.items() if kind != "none"]


class PolicyStage(Stage):
    """The policy and its evaluation in the target."""

    name = "policy"
    is_result = True

    def inputs(self, config: ExperimentConfig) -> Mapping[str, str]:
        """See `Stage`."""
        return TABLES | {name: name for name in (*filtered_columns(config), *config.policy.reads())}

    def requests(self, config: ExperimentConfig) -> list[Request]:
        """See `Stage`."""
        from v2a_ray.domains import parse_domain

        settings = prepared(config) | {
            "policy": moving(config.policy),
            "evaluation": config.evaluation.model_dump(mode="json"),
            "domain": parse_domain(config.target.domain).identity,
        }
        if config.is_offline:
            settings["offline"] = config.offline.model_dump(mode="json")
        return [Request(self.inputs(config), settings, BOTH_ROWS)]

    def costs(self, config: ExperimentConfig, tables: Tables) -> list[Cost]:
        """The update steps, and evaluations whose episodes do not end early."""
        policy, evaluation = config.policy, config.evaluation
        times = math.ceil(policy.num_steps / evaluation.interval_steps) if evaluation.interval_steps else 1
        from v2a_ray.domains import parse_domain

        robot = parse_domain(config.target.domain).robot_spec
        # An upper bound: a policy that falls ends its episodes earlier.
        steps = times * evaluation.num_episodes * robot.max_episode_steps
        evaluations = Cost(f"evaluate {robot_of(config.target.domain)}", steps)
        if config.is_offline:
            evaluations = Cost("evaluate offline", times * config.offline.num_steps)
        kind = f"policy {policy.learner}" + (" in support" if "density" in policy.reads() else "")
        return [Cost("start", 1), Cost(kind, policy.num_steps, layers(policy)), evaluations]

    def seed(self, config: ExperimentConfig) -> int:
        """The experiment's seed."""
        return config.seed

    def device(self, config: ExperimentConfig) -> DeviceName:
        """See `Stage`; RLlib's learners are trained on the CPU."""
        return "cpu" if config.policy.uses_rllib else config.policy.device

    def fit_owner(self, config: ExperimentConfig) -> PolicyConfig:
        """See `Stage`: the learner's settings name the function that computes the stage."""
        return config.policy
