"""A plugin: an alignment by nearest neighbours, a learner, and a method that combines them.

    v2a run examples/plugin/experiment.yaml

The alignment trains nothing: h of a source transition is minus its distance to the nearest target transition. The
learner clones behaviour, weighed by f. `docs/extending.md` explains each part.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from v2a_ray.engine.rates import Cost, Tables
from v2a_ray.experiments.methods import Method, register_method
from v2a_ray.settings.base import Positive
from v2a_ray.stages.alignment.config import ALIGNMENTS, AlignmentConfig
from v2a_ray.stages.policy.config import LEARNERS, PolicyConfig


def fit_nearest(tables):
    """h (N,) of the source and (M,) of held-out target transitions, from rows (s, a, s' - s)."""
    from sklearn.neighbors import NearestNeighbors

    from v2a_ray.stages.alignment.scores import Alignment, carried

    def rows(transitions):
        batches = list(transitions.chunks(16384))
        parts = [(b.observation_BO, b.action_BA, b.next_observation_BO - b.observation_BO) for b in batches]
        return np.concatenate([np.concatenate([part.cpu().numpy() for part in each], axis=1) for each in parts])

    target = NearestNeighbors(n_neighbors=tables.config.num_neighbors).fit(rows(tables.transitions(tables.fitted)))

    def score(transitions):
        distances, _ = target.kneighbors(rows(transitions))
        return -distances.mean(axis=1).astype(np.float32)

    source, held_out = score(tables.sources), score(tables.transitions(tables.held_out))
    return Alignment(carried(source, tables.rows), held_out), []


@ALIGNMENTS.add
class NearestRowsConfig(AlignmentConfig):
    """Minus the mean distance to the nearest target transitions. Nothing is trained."""

    fits = fit_nearest
    kind: Literal["nearest_rows"] = "nearest_rows"
    num_neighbors: Positive = 5
    """Number of nearest target transitions in the mean distance."""

    def costs(self, tables: Tables) -> list[Cost] | None:
        """One query for every source transition."""
        return None if tables.source is None else [Cost("alignment nearest_rows", tables.source)]


def make_weighted_bc(inputs):
    """Behaviour cloning: squared error of the tanh mean with the filter's weights."""
    from v2a_ray.stages.policy.bc import BCLearner

    class WeightedBC(BCLearner):
        def update(self, step):
            batch, weight_B = self.sampler.sample(self.generator)
            error_B = (self.actor(batch.observation_BO) - batch.action_BA).square().sum(dim=1)
            loss = (weight_B.pow(inputs.config.sharpness) * error_B).mean()
            self.optimizers["actor"].zero_grad(set_to_none=True)
            loss.backward()
            self.optimizers["actor"].step()
            return {"policy/actor_loss": loss.detach()}

    return WeightedBC(inputs.sampler, inputs.actor, inputs.config, inputs.seed)


@LEARNERS.add
class WeightedBCConfig(PolicyConfig):
    """Behaviour cloning of the kept transitions, with the filter's weights to a power."""

    makes = make_weighted_bc
    learner: Literal["weighted_bc"] = "weighted_bc"
    sharpness: float = Field(1.0, ge=0.0)
    """Power of the weights; 0 gives equal weights."""


register_method(
    "nearest_bc",
    Method(
        "nearest-neighbour h; best half by h, cloned with weight exp(h)",
        {
            "alignment": {"kind": "nearest_rows"},
            "policy": {
                "learner": "weighted_bc",
                "filter": {"rule": "top_fraction", "alignment_weight": 1.0, "weight": "exp_alignment"},
            },
        },
        "an example",
        published=False,
    ),
)
