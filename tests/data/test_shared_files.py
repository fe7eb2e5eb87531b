"""The third-party files in ../shared/data convert, and their known defects are named by row."""

from pathlib import Path

import pytest

from v2a_ray.data.formats.readers import read_table

FOLDER = Path(__file__).parents[3] / "shared" / "data"
# Rows whose next observation is another episode's reset.
RESETS = {
    "hopper_gravity_0.5_medium_expert": [659, 1474, 2466, 3362, 4332],
    "hopper_kinematic_medium_expert": [999, 2998, 3998],
    "hopper_morph_medium_expert": [651, 1319, 2319, 3319],
    "halfcheetah_gravity_0.5_medium_expert": [999, 2998, 3998],
    "halfcheetah_kinematic_medium_expert": [999, 2998, 3998],
    "halfcheetah_morph_medium_expert": [999, 2998, 3998],
}
# Resets at a fall.
FALLS = {
    "hopper_gravity_0.5_medium_expert": [659, 1474, 2466, 3362, 4332],
    "hopper_morph_medium_expert": [651, 1319],
}
# Episodes (an unfinished last one included) and mean return.
EPISODES = {
    "hopper_gravity_0.5_medium": (8, 2235),
    "hopper_kinematic_medium": (5, 1872),
    "hopper_morph_medium": (8, 1880),
    "hopper_gravity_0.5_expert": (6, 3438),
    "hopper_kinematic_expert": (5, 2845),
    "hopper_morph_expert": (5, 3155),
    "halfcheetah_morph_expert": (5, 9624),
    "hopper_stock_random": (922, 18),
    "halfcheetah_stock_medium": (20, 5032),
}

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason=f"{FOLDER} is absent: third-party data are not shipped")


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.hdf5")), ids=lambda file: file.stem)
def test_file(file) -> None:
    reading = read_table(file)
    table = reading.table
    expected = RESETS.get(file.stem, [])
    falls = [row for row in expected if row in FALLS.get(file.stem, [])]
    cuts = [row for row in expected if row not in falls]
    named = {finding.check: finding.message.rsplit("row ")[-1] for finding in reading.findings}
    kinds = {"reset_as_next": cuts, "terminal_reset_as_next": falls}
    assert named == {check: ", ".join(map(str, rows)) for check, rows in kinds.items() if rows}
    assert reading.ordered
    if file.stem in EPISODES:
        assert (table.num_episodes, round(table.returns.mean())) == EPISODES[file.stem]
    if expected:
        # Two medium and three expert episodes: falls are kept, the other episodes end before their false step.
        assert table.num_episodes == 5
        assert table.terminated.sum() == len(falls) == (~table.arrival_recorded).sum()
