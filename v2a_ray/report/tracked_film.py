"""The film of a finished policy that trackers get. Importing this module loads neither MuJoCo nor torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from v2a_ray.errors import ConfigError, DataError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.settings.environment_names import is_recorded, label_of

FILM = "film.gif"
"""In the folder of a run or trial."""


@dataclass(frozen=True)
class Film:
    """A policy's first evaluation episode, to be drawn.

    Attributes:
        weights: file of the actor.
        domain: name of the target.
        seed: of the episode's reset.
        seconds: the robot's time that it shows at most.
        path: the file to write.
    """

    weights: Path
    domain: str
    seed: int
    seconds: float
    path: Path

    def draw(self) -> None:
        """Write the file. Raises V2AError without a simulator, a MuJoCo model, or an actor of ours."""
        from v2a_ray.domains import parse_domain
        from v2a_ray.evaluation.video import frames, record, write_film
        from v2a_ray.export.policies import load_actor

        if is_recorded(self.domain):
            raise ConfigError("there is no simulator", where=label_of(self.domain), remedy="leave film_seconds at 0")
        if not self.weights.exists():
            raise DataError(
                "the policy is an RLlib module", where=label_of(self.domain), remedy="leave film_seconds at 0"
            )
        episode = record(load_actor(self.weights).act_numpy, parse_domain(self.domain), self.seed, self.seconds)
        write_film(list(frames(episode)), self.path)


def film_of(config: ExperimentConfig, policy: Path, folder: Path) -> Film | None:
    """The film, to be drawn into `folder`, of the policy whose files are in `policy`; None unless asked for."""
    if not config.film_seconds:
        return None
    weights, domain = policy / "actor.safetensors", config.target.domain
    return Film(weights, domain, config.evaluation.seed, config.film_seconds, folder / FILM)
