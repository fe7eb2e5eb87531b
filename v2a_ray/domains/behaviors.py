"""Behaviour policies: small trained actors that collect data. They need only NumPy, so collectors never load torch.

Weights live in `weights/<domain slug>/` of this package, or in any folder of the same layout: a safetensors file per
actor (`medium`, `expert`, `snapshot-000123`: after 123 thousand steps) and `provenance.json`, which says how they were
trained.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from v2a_ray.domains.base import Domain
from v2a_ray.domains.domain import RobotDomain, parse_domain
from v2a_ray.domains.own.behavior import is_function, load_function, load_onnx
from v2a_ray.domains.rollout import roll_out
from v2a_ray.errors import DomainError
from v2a_ray.files import read_json
from v2a_ray.settings.environment_names import is_behavior_file

Float = NDArray[np.float32]
WEIGHTS_FOLDER = Path(__file__).parent / "weights"
MIXES = ("medium-replay", "medium-expert")
# RLlib's MeanStdFilter clips normalised observations to this in training, so the actor needs the same clipping.
NORMALIZED_LIMIT = 10.0
_STD_EPSILON = 1e-8


class BehaviorPolicy(Protocol):
    """Anything that acts on a batch of observations."""

    def act(self, observation: NDArray[Any]) -> Float:
        """Actions (B, A) float32 in [-1, 1] for observations (B, O).

        An action depends only on its own row, to the last bit, so that data do not depend on the batching.
        """
        ...


@dataclass(frozen=True)
class GaussianActor:
    """The mean action of a tanh network over normalised observations.

    Attributes:
        weights, biases: per layer (out, in) and (out,); tanh after every layer but the last.
        observation_mean, observation_std: (O,) statistics seen in training.
        log_std: (A,) of the Gaussian that training explored with; `act` does not sample from it.
    """

    weights: tuple[Float, ...]
    biases: tuple[Float, ...]
    observation_mean: Float
    observation_std: Float
    log_std: Float

    def act(self, observation: NDArray[Any]) -> Float:
        """Mean actions (B, A) float32, clipped to [-1, 1], for observations (B, O)."""
        centred = (observation - self.observation_mean) / (self.observation_std + _STD_EPSILON)
        # One vector-matrix product per row, (B, 1, in) by (in, out): the rounding of one product for the whole batch
        # would depend on the batch size.
        hidden = np.clip(centred, -NORMALIZED_LIMIT, NORMALIZED_LIMIT).astype(np.float32)[:, None]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = np.tanh(hidden @ weight.T + bias)
        action: Float = np.clip((hidden @ self.weights[-1].T + self.biases[-1])[:, 0], -1.0, 1.0)
        return action

    def ignoring(self, num_observations: int) -> GaussianActor:
        """The same actor for observations with `num_observations` more entries at their end, which it ignores."""
        first = np.pad(self.weights[0], ((0, 0), (0, num_observations)))
        return replace(
            self,
            weights=(first, *self.weights[1:]),
            observation_mean=np.pad(self.observation_mean, (0, num_observations)),
            observation_std=np.pad(self.observation_std, (0, num_observations), constant_values=1.0),
        )

    @staticmethod
    def from_tensors(tensors: dict[str, NDArray[Any]]) -> GaussianActor:
        """Inverse of `to_tensors`."""
        layers = range(sum(name.endswith(".weight") for name in tensors))
        return GaussianActor(
            weights=tuple(tensors[f"layer{index}.weight"] for index in layers),
            biases=tuple(tensors[f"layer{index}.bias"] for index in layers),
            observation_mean=tensors["observation_mean"],
            observation_std=tensors["observation_std"],
            log_std=tensors["log_std"],
        )

    def to_tensors(self) -> dict[str, Float]:
        """The actor as named float32 arrays, the content of its safetensors file."""
        layers: dict[str, Float] = {}
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            layers |= {f"layer{index}.weight": weight, f"layer{index}.bias": bias}
        statistics = {name: getattr(self, name) for name in ("observation_mean", "observation_std", "log_std")}
        return {name: np.ascontiguousarray(value, np.float32) for name, value in (layers | statistics).items()}


class UniformPolicy:
    """Uniformly random actions, the `random` behaviour of every domain."""

    def __init__(self, action_dim: int, seed: int = 0) -> None:
        self.action_dim = action_dim
        self.generator = np.random.default_rng(seed)

    def act(self, observation: NDArray[Any]) -> Float:
        """Actions (B, A) float32, uniform in [-1, 1]."""
        return self.generator.uniform(-1.0, 1.0, (len(observation), self.action_dim)).astype(np.float32)


def load_behavior(
    domain: Domain | str, behavior: str, folder: Path | str | None = None, seed: int = 0
) -> BehaviorPolicy:
    """The policy called `behavior`: `random`, `medium`, `expert`, a snapshot, or a function `module:name` of anybody's.

    Args:
        domain: the domain whose weights to load; with `folder`, only the robot matters. A variant of a robot shares its
            weights.
        behavior: one policy, not a mix (`behavior_components` resolves mixes); or a file, `.safetensors` or `.onnx`.
        folder: load from here instead of the package, for example another domain's training output.
        seed: of `random`.

    Raises DomainError when there are no such weights or they belong to a robot of other dimensions.
    """
    domain = parse_domain(domain) if isinstance(domain, str) else domain
    spec = domain.robot_spec
    if behavior == "random":
        return UniformPolicy(spec.action_dim, seed)
    if is_function(behavior):
        return load_function(behavior, spec.action_dim)
    is_file = is_behavior_file(behavior)
    path = Path(behavior).expanduser() if is_file else _folder(domain, folder) / f"{behavior}.safetensors"
    if is_file and not path.is_file():
        raise DomainError("there is no such file", where=f"behaviour {behavior}", remedy="a path that every node has")
    if path.suffix == ".onnx":
        return load_onnx(path, spec.observation_dim, spec.action_dim)
    if not path.exists():
        names = ("random", *_names(path.parent), *MIXES)
        raise DomainError(f"no behaviour {behavior!r}", where=domain.name, remedy=f"one of {', '.join(names)}")
    actor = _read_actor(path, path.stat().st_mtime_ns)
    num_zeros = domain.robot_spec.num_zeros if isinstance(domain, RobotDomain) else 0
    if num_zeros and len(actor.observation_mean) == spec.observation_dim - num_zeros:
        actor = actor.ignoring(num_zeros)
    found = (len(actor.observation_mean), len(actor.biases[-1]))
    if found != (spec.observation_dim, spec.action_dim):
        raise DomainError(
            f"the actor is for {found[0]} observations and {found[1]} actions, "
            f"{domain.robot} has {spec.observation_dim} and {spec.action_dim}",
            where=str(path),
            remedy=f"weights trained on {domain.robot}",
        )
    return actor


# A sweep loads the same few actors thousands of times; `_modified_ns` changes when a file is rewritten.
@lru_cache(maxsize=256)
def _read_actor(path: Path, _modified_ns: int) -> GaussianActor:
    return GaussianActor.from_tensors(load_file(path))


def require_same_robot(policy_domain: Domain, domain: Domain) -> None:
    """Raise DomainError unless a policy of `policy_domain` can act in `domain`; see `same_robot`."""
    if not same_robot(policy_domain, domain):
        raise DomainError(
            f"a policy of {policy_domain.robot} cannot act on {domain.robot}",
            where=domain.name,
            remedy=f"a behaviour of {domain.robot}, `v2a behaviors list` names them",
        )


def same_robot(one: Domain, other: Domain) -> bool:
    """Whether policies and data of one domain are of use in the other.

    Our robots are told by name. Of anybody's environment only the dimensions are known.
    """
    if isinstance(one, RobotDomain) and isinstance(other, RobotDomain):
        return one.robot == other.robot
    mine, others = one.robot_spec, other.robot_spec
    return (mine.observation_dim, mine.action_dim) == (others.observation_dim, others.action_dim)


def behavior_components(
    domain: Domain | str, behavior: str, folder: Path | str | None = None
) -> list[tuple[str, float]]:
    """The policies that `behavior` consists of, with the fraction of transitions each collects.

    `medium-replay` imitates the data of training up to medium: random actions and every snapshot up to and including
    medium in equal parts. `medium-expert` is half of each. Any other behaviour is a single policy.
    """
    if behavior == "medium-expert":
        return [("medium", 0.5), ("expert", 0.5)]
    if behavior != "medium-replay":
        return [(behavior, 1.0)]
    domain = parse_domain(domain) if isinstance(domain, str) else domain
    snapshots = [name for name in _names(_folder(domain, folder)) if name.startswith("snapshot-")]
    names = ["random", *snapshots, "medium"]
    return [(name, 1.0 / len(names)) for name in names]


def list_behaviors(folder: Path | str | None = None) -> list[dict[str, Any]]:
    """One row per packaged policy: domain, behavior, num_steps, num_episodes, return_mean, return_std,
    normalized_score, and the command and total steps of its training."""
    rows = []
    for path in sorted(Path(folder or WEIGHTS_FOLDER).glob("*/provenance.json")):
        provenance = read_json(path)
        about = {name: provenance[name] for name in ("domain", "command")}
        about["training_steps"] = provenance["num_steps"]
        rows += [about | row for row in provenance["behaviors"]]
    return rows


def evaluate_policy(policy: BehaviorPolicy, domain: Domain | str, num_episodes: int, seed: int = 0) -> NDArray[Any]:
    """Undiscounted returns (num_episodes,) of one episode in each of `num_episodes` environments, in lockstep."""
    return roll_out(policy.act, domain, num_episodes, seed)[0]


def _folder(domain: Domain, folder: Path | str | None) -> Path:
    own, shared = WEIGHTS_FOLDER / domain.slug, WEIGHTS_FOLDER / domain.base.slug
    path = Path(folder) if folder else own if own.is_dir() else shared
    if not path.is_dir():
        trained = sorted(each.name for each in WEIGHTS_FOLDER.glob("*") if each.is_dir())
        raise DomainError(
            f"no trained behaviours for {domain.name}" + ("" if not folder else f" in {path}"),
            where="behaviour",
            remedy=f"`v2a behaviors train {domain.name}`; packaged: {', '.join(trained) or 'none'}",
        )
    return path


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.safetensors"))
