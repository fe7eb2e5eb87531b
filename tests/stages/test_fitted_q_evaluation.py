"""Fitted Q evaluation against values known in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.stages.problems import linear_system, table_of
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.splits import split_target
from v2a_ray.errors import DataError
from v2a_ray.evaluation.fitted_q_evaluation import FittedQConfig, first_states, hold_out, offline_value

CONFIG = FittedQConfig(
    num_steps=1500, batch_size=32, num_critics=2, width=32, discount=0.5, target_rate=0.1, learning_rate=3e-3
)
FIRST, SECOND = [1.0, 0.0], [0.0, 1.0]


def two_states() -> EpisodeTable:
    """First state: +1 has reward 1 and leads to the second, -1 has reward 0 and stays. Second: +1 has reward 2 and ends
    the episode, -1 has reward 0 and leads to the first. Every pair appears once, in episodes of one or two steps."""
    return table_of(
        observation=[FIRST, SECOND, FIRST, SECOND],
        action=[[1.0], [1.0], [-1.0], [-1.0]],
        reward=[1.0, 2.0, 0.0, 0.0],
        next_observation=[SECOND, FIRST, FIRST, FIRST],
        lengths=[2, 1, 1],
        terminated=[True, False, False],
    )


def policy(in_first: float, in_second: float) -> Any:
    def act(observation: NDArray[Any]) -> NDArray[np.float32]:
        return np.where(observation[:, :1] > 0.5, in_first, in_second).astype(np.float32)

    return act


@pytest.mark.parametrize(
    ("actions", "value"),
    [
        ((1.0, 1.0), 2.0),  # 1 + 0.5 * 2, and nothing after the terminal step
        ((-1.0, -1.0), 0.0),
        ((1.0, -1.0), 4.0 / 3.0),  # v = 1 + 0.5 * (0 + 0.5 * v)
    ],
)
def test_fitted_q_evaluation_finds_the_value_of_a_tabular_policy(actions: tuple[float, float], value: float) -> None:
    first = np.asarray([FIRST], np.float32)
    found = offline_value(policy(*actions), two_states(), first, CONFIG, seed=0)
    assert found.of_critic == pytest.approx([value, value], abs=0.05)
    assert found.num_episodes == 1


def test_truncated_step_bootstraps_and_values_stay_bounded() -> None:
    table = two_states()
    endless = table.replace(terminated=~table.terminated & False, truncated=table.truncated | True)
    first = np.asarray([FIRST], np.float32)
    # v = 1 + 0.5 * (2 + 0.5 * v), because the second state's +1 now leads back to the first.
    found = offline_value(policy(1.0, 1.0), endless, first, CONFIG, seed=0)
    assert found.mean == pytest.approx(8.0 / 3.0, abs=0.05)
    # No return exceeds that of the largest reward in every step: 2 / (1 - 0.5).
    assert found.mean < 4.0


def test_fitted_q_evaluation_with_equal_seeds_is_bit_identical() -> None:
    config = CONFIG.model_copy(update={"num_steps": 20})
    first = np.asarray([FIRST], np.float32)
    runs = [offline_value(policy(1.0, 1.0), two_states(), first, config, seed).of_critic for seed in (3, 3, 4)]
    assert (runs[0] == runs[1]).all() and (runs[0] != runs[2]).all()


def test_first_states_come_from_episodes_held_out_by_split_target() -> None:
    table = linear_system([4, 5, 6, 7, 8, 9], gain=0.5, seed=0)
    fitted, unseen = hold_out(table, 0.3, seed=1)
    first = first_states(unseen)
    expected_fit, held_out = split_target(table, 0.3, 1)
    assert fitted.episode_id == expected_fit.episode_id
    assert not set(fitted.episode_id) & set(held_out.episode_id)
    starts = {tuple(table.observation[row]) for row in table.offsets[:-1]}
    assert len(first) == held_out.num_episodes and {tuple(state) for state in first} <= starts


@pytest.mark.parametrize(("lengths", "reason"), [([5] * 4, "4 episodes"), ([1] * 20, "single transitions")])
def test_data_without_known_first_states_is_refused(lengths: list[int], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        hold_out(linear_system(lengths, gain=0.5, seed=0), 0.2, seed=0)
