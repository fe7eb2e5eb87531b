"""V2A's premise on a toy problem: if an action has opposite values under two dynamics, `dvdf` keeps bad samples and
`v2a` keeps good ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.stages.problems import raw, table_of
from v2a_ray.data.loading.sampler import Transitions
from v2a_ray.engine.trainer import TrainingLoop
from v2a_ray.experiments.methods import method_settings
from v2a_ray.stages.advantage.config import ADVANTAGES
from v2a_ray.stages.advantage.learner import AdvantageLearner
from v2a_ray.stages.policy.config import FILTERS
from v2a_ray.stages.policy.filtering import SourceFilter

# One state. Under dynamics z, action a has reward z * a. Three quarters of the data have z = 1, so a global advantage
# prefers a = 1, which is wrong for every transition with z = -1.
ACTION = np.asarray([1.0, -1.0] * 8, np.float32)
Z = np.repeat(np.asarray([1.0, -1.0], np.float32), [12, 4])
EARNED = Z * ACTION
FEWER = Z == -1


def kept(method: str, **changes: Any) -> np.ndarray:
    """(16,) bool: the transitions that the method keeps by its advantage; all are equally aligned."""
    settings = method_settings(method)
    count = len(ACTION)
    ones = np.ones((count, 1))
    table = table_of(ones, ACTION[:, None], EARNED, ones, [1] * count, [True] * count)
    conditioned = settings["advantage"]["conditioning"] == "modality"
    transitions = Transitions(table, raw(1), {"z": Z[:, None]} if conditioned else {})
    config = ADVANTAGES(
        num_steps=500,
        batch_size=512,
        width=16,
        learning_rate=3e-3,
        target_rate=0.1,
        **settings["advantage"] | changes,
    )
    torch.manual_seed(0)
    learner = AdvantageLearner(transitions, 1 if conditioned else 0, config, seed=0)
    TrainingLoop(config.num_steps).run(learner)
    advantage = torch.from_numpy(learner.score(transitions))
    source_filter = SourceFilter.prepare(FILTERS(**settings["policy"]["filter"]))
    keep, _ = source_filter({"alignment": torch.zeros(count), "advantage": advantage}, count)
    return np.isin(np.arange(count), keep.numpy())


@pytest.mark.parametrize("kind", ["sparse_q", "iql"])
def test_v2a_keeps_the_good_samples_and_dvdf_does_not(kind: str) -> None:
    dvdf, v2a = kept("dvdf", kind=kind), kept("v2a", kind=kind)
    assert dvdf.sum() == v2a.sum() == 8
    # Two of the rarer dynamics' four transitions are good. DVDF keeps exactly the two others.
    assert EARNED[FEWER & dvdf].tolist() == [-1.0, -1.0]
    assert EARNED[v2a].tolist() == [1.0] * 8
    assert EARNED[dvdf].mean() == pytest.approx(0.5)
