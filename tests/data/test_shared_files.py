"""Third-party files convert to the known episodes and returns, and every known defect is reported by its row."""

from __future__ import annotations

import pytest

from tests.shared_data import needs_shared_data, shared_file
from v2a_ray.data.formats.readers import read_table

EPISODES = {
    "halfcheetah_gravity_0.5_expert": (5, 8140),
    "halfcheetah_gravity_0.5_medium": (5, 4300),
    "halfcheetah_gravity_0.5_medium_expert": (5, 6568),
    "halfcheetah_kinematic_expert": (5, 7006),
    "halfcheetah_kinematic_medium": (5, 2759),
    "halfcheetah_kinematic_medium_expert": (5, 5298),
    "halfcheetah_morph_expert": (5, 9624),
    "halfcheetah_morph_medium": (5, 4160),
    "halfcheetah_morph_medium_expert": (5, 7474),
    "halfcheetah_stock_expert": (20, 11588),
    "halfcheetah_stock_medium": (20, 5032),
    "halfcheetah_stock_random": (20, -294),
    "hopper_gravity_0.5_expert": (6, 3438),
    "hopper_gravity_0.5_medium": (8, 2235),
    "hopper_gravity_0.5_medium_expert": (5, 3449),
    "hopper_kinematic_expert": (5, 2845),
    "hopper_kinematic_medium": (5, 1872),
    "hopper_kinematic_medium_expert": (5, 2452),
    "hopper_morph_expert": (5, 3155),
    "hopper_morph_medium": (8, 1880),
    "hopper_morph_medium_expert": (5, 2694),
    "hopper_stock_expert": (23, 3178),
    "hopper_stock_medium": (21, 2317),
    "hopper_stock_random": (922, 18),
}
"""Number of episodes, including an unfinished last one, and mean return. Every file must exist if the folder does."""
RESETS_AT_A_CUT = {
    "hopper_kinematic_medium_expert": [999, 2998, 3998],
    "hopper_morph_medium_expert": [2319, 3319],
    "halfcheetah_gravity_0.5_medium_expert": [999, 2998, 3998],
    "halfcheetah_kinematic_medium_expert": [999, 2998, 3998],
    "halfcheetah_morph_medium_expert": [999, 2998, 3998],
}
"""Rows at the end of a truncated episode whose next observation is another episode's reset."""
RESETS_AT_A_FALL = {
    "hopper_gravity_0.5_medium_expert": [659, 1474, 2466, 3362, 4332],
    "hopper_morph_medium_expert": [651, 1319],
}
"""The same at a terminal step."""


@needs_shared_data
@pytest.mark.parametrize("name", EPISODES)
def test_shared_file_has_the_known_episodes_and_defects(name: str) -> None:
    reading = read_table(shared_file(f"{name}.hdf5"))
    table = reading.table
    assert reading.ordered
    assert (table.num_episodes, round(float(table.returns.mean()))) == EPISODES[name]
    reported = {finding.check: finding.message.rsplit("row ")[-1] for finding in reading.findings}
    expected = {"reset_as_next": RESETS_AT_A_CUT, "terminal_reset_as_next": RESETS_AT_A_FALL}
    assert reported == {check: ", ".join(map(str, rows[name])) for check, rows in expected.items() if name in rows}
    if reported:
        # Falls are kept without their next observation; the other episodes end before the wrong step.
        assert table.terminated.sum() == (~table.arrival_recorded).sum() == len(RESETS_AT_A_FALL.get(name, []))
