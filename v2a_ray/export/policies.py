"""Opens policies: of a finished run, of an export, or a behaviour for collecting data."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from v2a_ray.checksums import file_digest
from v2a_ray.domains import Domain, parse_domain
from v2a_ray.domains.behaviors import MIXES, load_behavior, same_robot
from v2a_ray.domains.rollout import Act
from v2a_ray.errors import DataError, DomainError, told
from v2a_ray.evaluation.offline import HELD_OUT
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.files import read_json
from v2a_ray.networks import TanhActor
from v2a_ray.outputs import MARK
from v2a_ray.settings.yaml_files import validate


@dataclass(frozen=True)
class Policy:
    """A policy for the domains of one robot.

    Attributes:
        name: as the user wrote it.
        domain: the domain it was made for; it can act in all domains of the same robot.
        act: maps raw observations (B, O) to actions (B, A) in [-1, 1].
        run: the run that trained it, if the user named a run.
    """

    name: str
    domain: Domain
    act: Act
    run: TrainedPolicy | None = None


@dataclass(frozen=True)
class TrainedPolicy:
    """The policy of a finished run.

    Attributes:
        folder: the run directory.
        config: the run's settings.
        actor: the network; it takes raw observations.
        target_data: folder of the target's table in the run's store.
        source_data: the same of the sources; None if the run has none.
        held_out_data: for a target without a simulator, the episodes that no stage saw; else None.
        return_mean: mean undiscounted return of the run's evaluation episodes in the target; None without a simulator.
    """

    folder: Path
    config: ExperimentConfig
    actor: TanhActor
    target_data: Path
    source_data: Path | None
    held_out_data: Path | None
    return_mean: float | None

    @property
    def domain(self) -> Domain:
        """The target domain."""
        return parse_domain(self.config.target.domain)

    @property
    def about(self) -> dict[str, Any]:
        """The description stored in every export."""
        return {
            "made_by": MARK,
            "run": self.folder.name,
            "method": self.config.method_title,
            "seed": self.config.seed,
            "domain": self.domain.name,
            "observation": [self.actor.observation_mean_O.shape[0], "raw, float32"],
            "action": [self.domain.robot_spec.action_dim, "in [-1, 1], float32"],
        }


def open_trained(folder: Path) -> TrainedPolicy:
    """The policy of the run in `folder`. Raises DataError if it is not a finished run or its actor cannot be read."""
    file = folder / "result.json"
    if not file.exists():
        started = folder.is_dir() and any((folder / name).exists() for name in ("config.yaml", "tensorboard"))
        raise DataError(
            "the run is not finished" if started else "not a run: there is no result.json",
            where=str(folder),
            remedy="run the same `v2a run` again: it continues where it stopped"
            if started
            else "give a folder that a finished `v2a run` wrote",
        )
    try:
        result = read_json(file)
        stages = {stage["name"]: Path(stage["artifact"]) for stage in result["stages"]}
        target, content = stages["data/target"], result["config"]
        source = stages["source"] / "table" if "source" in stages else None
        offline = result.get("evaluation") == "offline"
        return_mean = None if offline else float(result["target"]["return_mean"])
        recorded = result.get("files", {}).get("actor.safetensors")  # missing in results of earlier versions
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"not the result of a run: {told(error)}", where=str(file), remedy="give a folder that `v2a run` wrote"
        ) from error
    config = validate(ExperimentConfig, content, file)
    if config.policy.uses_rllib:
        raise DataError(
            f"its policy is an RLlib module ({config.policy.learner}), a baseline for comparing scores",
            where=str(folder),
            remedy="its scores are in result.json, its weights in module.safetensors",
        )
    weights = folder / "actor.safetensors"
    actor = load_actor(weights)
    if recorded and recorded != file_digest(weights):
        raise DataError(
            "it is not the policy that the run wrote",
            where=str(weights),
            remedy="run the same `v2a run` again: it writes the policy again",
        )
    held_out = target / HELD_OUT if offline else None
    return TrainedPolicy(folder, config, actor, target / "table", source, held_out, return_mean)


def load_actor(file: Path) -> TanhActor:
    """The actor in a safetensors file. Raises DataError when there is none."""
    try:
        return actor_of(load_file(file))
    except FileNotFoundError as error:
        raise DataError(
            "the run's policy is gone",
            where=str(file),
            remedy="run the same `v2a run` again: it writes the policy again",
        ) from error
    except Exception as error:  # safetensors' errors have no public base class
        raise DataError(
            f"holds no actor of this platform: {error}", where=str(file), remedy="give a run of an offline method"
        ) from error


def actor_of(tensors: dict[str, Tensor]) -> TanhActor:
    """The actor with these parameters, which define its widths. Raises ValueError for other networks."""
    weights = [tensors[name] for name in sorted(tensors, key=_layer) if _is_weight(name)]
    if not weights or any(len(one) != other.shape[1] for one, other in pairwise(weights)):
        raise ValueError("its tensors are not the layers of a TanhActor")
    actor = TanhActor(weights[0].shape[1], len(weights[-1]), [len(weight) for weight in weights[:-1]])
    try:
        actor.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError("its tensors are not those of a TanhActor") from error
    return actor.eval()


def _is_weight(name: str) -> bool:
    return name.startswith("body.") and name.endswith(".weight")


def _layer(name: str) -> int:
    middle = name.split(".")[1] if "." in name else ""
    return int(middle) if middle.isdecimal() else -1


def behavior_policy(text: str) -> Policy:
    """The behaviour `DOMAIN:NAME`, for example `hopper/stock:medium`. Raises DomainError if it does not exist."""
    domain_name, _, behavior = text.rpartition(":")
    domain = parse_domain(domain_name)
    if behavior in MIXES:
        raise DomainError(f"{behavior} is data of several policies", where=text, remedy="one policy: medium, expert")
    return Policy(text, domain, load_behavior(domain, behavior).act)


def require_robot_of(policy: Policy, domain: Domain) -> None:
    """Raise DomainError unless the policy can act in `domain`."""
    if not same_robot(policy.domain, domain):
        raise DomainError(
            f"{policy.name} is a policy of {policy.domain.robot} and cannot act on {domain.robot}",
            where=domain.name,
            remedy=f"a domain of {policy.domain.robot}; `v2a domains list {policy.domain.robot}` names them",
        )
