"""A policy from whatever a user calls one: a finished run, an export of ours, or a behaviour that collects data."""

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
    """Something that acts in the domains of one robot.

    Attributes:
        name: as the user wrote it.
        domain: that it was made for; it can act in every other of the same robot.
        act: raw observations (B, O) to actions (B, A) in [-1, 1].
        run: the run that trained it, if it was given as one.
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
        config: of the run.
        actor: the network, which standardises observations itself.
        target_data: folder of the table in the run's store.
        source_data: the same of the sources; None of a run that has none.
        held_out_data: of a target without a simulator, the episodes that no stage saw; else None.
        return_mean: over the run's own evaluation episodes in the target, undiscounted; None without a simulator.
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
        """The target."""
        return parse_domain(self.config.target.domain)

    @property
    def about(self) -> dict[str, Any]:
        """What every export says about itself."""
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
    """The policy of the run in `folder`. Raises DataError: no run, not finished, or its policy is gone or no actor."""
    file = folder / "result.json"
    if not file.exists():
        started = folder.is_dir() and any((folder / name).exists() for name in ("config.yaml", "tensorboard"))
        raise DataError(
            "the run is not finished" if started else "not a run: there is no result.json",
            where=str(folder),
            remedy="the `v2a run` that began it goes on where it stopped"
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
        recorded = result.get("files", {}).get("actor.safetensors")  # of earlier versions there is none
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"not the result of a run: {told(error)}", where=str(file), remedy="give a folder that `v2a run` wrote"
        ) from error
    config = validate(ExperimentConfig, content, file)
    if config.policy.uses_rllib:
        raise DataError(
            f"its policy is a module of RLlib ({config.policy.learner}), a peer to compare scores with",
            where=str(folder),
            remedy="its scores are in result.json, its weights in module.safetensors",
        )
    weights = folder / "actor.safetensors"
    actor = load_actor(weights)
    if recorded and recorded != file_digest(weights):
        raise DataError(
            "it is not the policy that the run wrote",
            where=str(weights),
            remedy="the `v2a run` that made it writes it again",
        )
    held_out = target / HELD_OUT if offline else None
    return TrainedPolicy(folder, config, actor, target / "table", source, held_out, return_mean)


def load_actor(file: Path) -> TanhActor:
    """The actor in a safetensors file. Raises DataError when there is none."""
    try:
        return actor_of(load_file(file))
    except FileNotFoundError as error:
        raise DataError(
            "the run's policy is gone", where=str(file), remedy="the `v2a run` that made it writes it again"
        ) from error
    except Exception as error:  # safetensors raises errors of its own, of no public base
        raise DataError(
            f"holds no actor of this platform: {error}", where=str(file), remedy="give a run of an offline method"
        ) from error


def actor_of(tensors: dict[str, Tensor]) -> TanhActor:
    """The actor with these parameters; its widths are those of its layers. Raises ValueError for other networks."""
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
    """The behaviour `DOMAIN:NAME`, for example `hopper/stock:medium`. Raises DomainError when there is none."""
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
