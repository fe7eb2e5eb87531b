"""Falls without a recorded next observation: dynamics models ignore these steps, critics learn from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.stages.problems import linear_system
from v2a_ray.data.loading.memory_mapped import MemoryMappedTransitions, write_rows
from v2a_ray.data.loading.sampler import Transitions, make_preprocessing, of_recorded_arrivals
from v2a_ray.data.loading.streaming import StreamedTransitions
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import read_manifest, write_table
from v2a_ray.stages.alignment.config import ALIGNMENTS
from v2a_ray.stages.alignment.optimal_transport import OptimalTransport
from v2a_ray.stages.alignment.scores import carried
from v2a_ray.stages.modality.config import ModalityConfig
from v2a_ray.stages.modality.model import ModalityModel, encode_episodes, moments
from v2a_ray.stages.support.dynamics import delta_std

LENGTHS = [40, 30, 1, 50]


def falls(arrival: str) -> EpisodeTable:
    """Episodes that end in a fall; with `arrival="unknown"`, their last s' is a copy of s."""
    table = linear_system(LENGTHS, 1.0, seed=0)
    table = table.replace(terminated=np.ones(4, dtype=bool), truncated=np.zeros(4, dtype=bool))
    if arrival == "recorded":
        return table
    following = table.next_observation.copy()
    ends = table.offsets[1:] - 1
    following[ends] = table.observation[ends]
    return table.replace(next_observation=following)


def row_file(folder: Path, table: EpisodeTable) -> MemoryMappedTransitions:
    write_table(table, folder / "table")
    (folder / "rows").mkdir()
    write_rows(folder / "table", folder / "rows")
    return MemoryMappedTransitions.open(folder / "rows")


def test_row_files_mark_recorded_next_observations(tmp_path: Path) -> None:
    table = falls("unknown")
    np.testing.assert_array_equal(row_file(tmp_path, table).arrival_recorded, table.arrival_recorded)
    assert np.flatnonzero(~table.arrival_recorded).tolist() == (table.offsets[1:] - 1).tolist()
    assert falls("recorded").arrival_recorded.all()


@pytest.mark.parametrize("streamed", [False, True])
def test_dynamics_samplers_draw_only_recorded_next_observations(streamed: bool, tmp_path: Path) -> None:
    table = falls("unknown")
    rows = row_file(tmp_path, table)
    manifest = read_manifest(tmp_path / "table")
    prepared = make_preprocessing(manifest, manifest, standardize=True, reward_scale=1.0)
    sampler: Any = Transitions(rows, prepared)
    if streamed:
        sampler = StreamedTransitions(rows, prepared, memory_bytes=2**30, seed=0)
    generator = torch.Generator().manual_seed(0)
    drawn = of_recorded_arrivals(sampler, rows).sample(2000, generator)
    assert drawn.arrival_recorded.all() and (drawn.not_done_B == 1).all()
    # A critic draws from the unrestricted sampler, so it sees the falls.
    whole = sampler.sample(2000, generator)
    assert (whole.not_done_B == 0).any() and not whole.arrival_recorded.all()


def test_dynamics_scale_and_modality_use_only_recorded_steps() -> None:
    unknown, known = falls("unknown"), falls("unknown").recorded_steps()
    prepared = make_preprocessing(
        {"observation_mean": [0.0, 0.0], "observation_std": [1.0, 1.0]}, {}, standardize=False, reward_scale=1.0
    )
    torch.testing.assert_close(delta_std(Transitions(unknown, prepared)), delta_std(Transitions(known, prepared)))
    config = ModalityConfig(latent_dim=2, encoder_width=8, decoder_width=8, encoder="pooled")
    torch.manual_seed(0)
    model = ModalityModel(2, 1, config)
    model.set_statistics(moments(known))
    latent = encode_episodes(model, unknown, config)
    np.testing.assert_array_equal(latent[[0, 1, 3]], encode_episodes(model, known, config))
    np.testing.assert_array_equal(latent[2], 0)  # the episode's only step has no recorded next observation


def test_fall_gets_the_alignment_of_the_step_before_it() -> None:
    table = falls("unknown")
    scores = np.arange(table.num_transitions, dtype=np.float32)
    scores[table.offsets[1:] - 1] = np.nan
    filled = carried(scores, table)
    assert filled[39] == 38 and filled[69] == 68 and filled[120] == 119
    assert filled[70] == np.median(scores[table.arrival_recorded])
    known = falls("recorded")
    assert carried(scores, known) is scores


def test_transport_plans_leave_out_unknown_next_observations() -> None:
    prepared = make_preprocessing(
        {"observation_mean": [0.0, 0.0], "observation_std": [1.0, 1.0]}, {}, standardize=False, reward_scale=1.0
    )
    target = Transitions(linear_system([60], 0.5, seed=1), prepared)
    transport = OptimalTransport(target, ALIGNMENTS(kind="optimal_transport"), seed=0)
    unknown = falls("unknown")
    scores = transport.score(Transitions(unknown, prepared)).numpy()
    alone = transport.score(Transitions(unknown.recorded_steps(), prepared)).numpy()
    np.testing.assert_allclose(scores[unknown.arrival_recorded], alone, rtol=1e-5)
    assert np.isnan(scores[~unknown.arrival_recorded]).all()
