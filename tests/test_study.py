"""The study's design, its runs cell by cell, and the statistics on its page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from benchmarks.study import (
    cost,
    extent,
    figures,
    repeated,
    report,
    run,
    selection,
    spread,
    standing,
    tables,
    where_z_matters,
)
from benchmarks.study.cells import NEAR, all_cells, effects
from benchmarks.study.design import UNDER
from benchmarks.study.suites import BASELINE_METHODS, METHODS, PUBLISHED_METHODS, REAL_METHODS, SEEDS
from v2a_ray.stages.advantage.config import SparseQConfig
from v2a_ray.stages.modality.config import ModalityConfig

ROOT = Path(__file__).parents[1]


def rows(scores: dict[str, dict[str, list[float]]], status: str = "finished") -> pa.Table:
    """Rows of results, given as scores by cell, method and seed."""
    return pa.Table.from_pylist(
        [
            {
                "axis/cell": cell,
                "axis/method": method,
                "axis/seed": str(seed),
                "status": status,
                "normalized_score_mean": score,
            }
            for cell, by_method in scores.items()
            for method, values in by_method.items()
            for seed, score in zip(SEEDS, values, strict=False)
        ]
    )


def test_no_cell_uses_the_same_data_as_source_and_target() -> None:
    cells = all_cells()
    assert len({cell.label for cell in cells}) == len(cells)
    assert not any(cell.dynamics == "same" and cell.behavior == cell.quality for cell in cells)
    assert np.linalg.matrix_rank(effects(cells)) == effects(cells).shape[1]


@pytest.mark.parametrize("name", ["map_hopper", "map_ant", "real"])
def test_parts_of_a_map_cover_the_map(name: str) -> None:
    whole = yaml.safe_load((ROOT / f"tune_configs/study/{name}.yaml").read_text())
    axes = whole["axes"]
    parts = [run.part_sweep(whole, cell, seed) for cell in axes["cell"] for seed in axes["seed"]]
    assert len({part["name"] for part in parts}) == len(parts)
    for axis in ("cell", "seed"):
        assert {label: value for part in parts for label, value in part["axes"][axis].items()} == axes[axis]
    for part in parts:
        assert len(part["axes"]["cell"]) == len(part["axes"]["seed"]) == 1
        own = part["axes"] | {"cell": axes["cell"], "seed": axes["seed"]}
        assert part | {"name": whole["name"], "axes": own} == whole


def test_part_is_run_again_until_every_method_has_finished() -> None:
    missing_one = {method: [1.0, 2.0] for method in METHODS} | {"v2a": [1.0]}
    table = pa.concat_tables(
        [rows({"a": missing_one}), rows({"b": {method: [1.0] for method in METHODS}}, status="failed: NaN")]
    )
    places = [("a", "0"), ("a", "1"), ("b", "0"), ("c", "0")]
    assert [run.is_whole(table, METHODS, *place) for place in places] == [True, False, False, False]
    assert run.is_whole(table, ["iql_target"], "a", "1")
    assert not run.is_whole(None, METHODS, "a", "0")


def test_rows_of_a_part_replace_only_its_own() -> None:
    def part(seed: str, method: str, **values: float) -> dict[str, object]:
        return {"axis/cell": "a", "axis/method": method, "axis/seed": seed, "config/seed": 0, **values}

    before = [part("0", "v2a", data_kept=0.5), part("1", "v2a", data_kept=0.1), part("1", "otdf", data_kept=0.2)]
    first = run.with_rows_of(None, pa.Table.from_pylist(before))
    second = run.with_rows_of(first, pa.Table.from_pylist([part("1", "v2a", return_mean=9.0)]))
    found = [tuple(row[name] for name in ("axis/seed", "axis/method", "data_kept")) for row in second.to_pylist()]
    assert found == [("0", "v2a", 0.5), ("1", "otdf", 0.2), ("1", "v2a", None)]
    assert second["return_mean"].to_pylist() == [None, None, 9.0]


@pytest.mark.parametrize(("name", "method"), [("map_hopper", "v2a"), ("published_hopper", "v2a without z")])
def test_part_of_one_method_has_that_method_alone(name: str, method: str) -> None:
    whole = yaml.safe_load((ROOT / f"tune_configs/study/{name}.yaml").read_text())
    cell, *_ = whole["axes"]["cell"]
    part, every = run.part_sweep(whole, cell, "0", [method]), run.part_sweep(whole, cell, "0")
    assert list(part["axes"]["method"]) == [method] and len(every["axes"]["method"]) > 1
    assert part["axes"]["cell"] == every["axes"]["cell"]


def test_only_seeds_of_all_methods_are_read(tmp_path: Path) -> None:
    whole = {method: [1.0, 2.0, 3.0] for method in METHODS}
    table = rows({"whole": whole, "a seed less": whole | {"v2a": [1.0, 2.0]}, "begun": {"v2a": [1.0, 2.0, 3.0]}})
    pq.write_table(pa.concat_tables([table, rows({"failed": whole}, status="failed: NaN")]), tmp_path / "rows")
    cells = run.read_cells([tmp_path / "rows"], METHODS, SEEDS)
    assert {name: cells[name]["v2a"].tolist() for name in cells} == {"whole": [1, 2, 3], "a seed less": [1, 2]}
    assert cells["a seed less"]["iql_target"].tolist() == [1, 2]


def test_contrasts_by_hand() -> None:
    base = {method: np.zeros(3) for method in METHODS}
    cells = [
        base | {"iql_mixed": np.full(3, 10.0), "v2a": np.asarray([9.0, 10.0, 14.0])},
        base | {"iql_target": np.full(3, 20.0), "v2a": np.asarray([21.0, 22.0, 20.0])},
        base | {"v2a": np.asarray([2.0, 3.0, 1.0])},
    ]
    found = {(row.method, row.other): row for row in tables.contrasts(cells)}
    against = found["v2a", "better baseline"]
    # 11 - 10, 21 - 20, 2 - 0; the second cell's third seed ties with all three of the target's.
    assert against.mean == pytest.approx((1 + 1 + 2) / 3)
    assert against.improvement == pytest.approx(np.mean([(0 + 0.5 + 1) / 3, (1 + 1 + 0.5) / 3, 1.0]))
    assert found["iql_mixed", "iql_target"].mean == pytest.approx((10 - 20 + 0) / 3)
    assert against.low < against.mean < against.high


def test_filter_is_compared_with_the_baselines_of_its_own_learner() -> None:
    def cell(target: float, mix: float, filtered: float) -> dict[str, np.ndarray]:
        """IQL's scores as given; those of the other learners are twice, three and four times as high."""
        names = [(name, factor) for factor, names in enumerate(UNDER.values(), 1) for name in names]
        values = (target, mix, filtered) * len(UNDER)
        return {name: np.full(3, factor * value) for (name, factor), value in zip(names, values, strict=True)}

    lines = tables.learners_table([cell(10, 0, 9), cell(0, 4, 2), cell(1, 1, 1)])
    first, second, *_ = (line.strip("| ").split(" | ") for line in lines[2:])
    # The better baselines are 10, 4, 1; the filter's gains -1, -2, 0, and twice that.
    assert first[:5] == ["iql", "3.7", "1.7", "4.0", "5.0"] and first[6] == "0 of 3"
    assert second[:5] == ["td3_bc", "7.3", "3.3", "8.0", "10.0"] and second[6] == "1 of 3"
    assert first[5].startswith("-1.0 [") and second[5].startswith("-2.0 [")


def test_holm_by_hand() -> None:
    assert tables.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert tables.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_interval_of_a_gain_is_paired() -> None:
    mine, others = np.asarray([11.0, 22.0, 33.0]), np.asarray([10.0, 20.0, 30.0])
    mean, half = figures.gain_interval(mine, others)
    # Differences 1, 2, 3: s = 1, and t(0.975, 2) = 4.303.
    assert np.isnan(figures.gain_interval(mine[:1], others[:1])[1])
    assert mean == pytest.approx(2.0) and half == pytest.approx(4.303 / np.sqrt(3), abs=1e-3)


def test_study_page_is_written_from_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    generator = np.random.default_rng(0)
    scores = {f"cell {i}": {method: generator.normal(50, 5, 3).tolist() for method in METHODS} for i in range(4)}
    pq.write_table(rows(scores), tmp_path / "map_hopper.parquet")
    recorded = {f"robot {i}": {method: [50.0 + i, 52.0 + i] for method in REAL_METHODS} for i in range(3)}
    pq.write_table(rows(recorded), tmp_path / "real.parquet")
    plain = {f"plain {i}": {method: [10.0 * i] for method in BASELINE_METHODS} for i in range(2)}
    pq.write_table(rows(plain), tmp_path / "baselines_ant.parquet")
    suite = {f"suite {i}": {method: [10.0 + i] for method in PUBLISHED_METHODS} | {"v2a": [7.0]} for i in range(3)}
    pq.write_table(rows(suite), tmp_path / "published_hopper.parquet")
    sweep = tmp_path / "where_z_pays"
    sweep.mkdir()
    pq.write_table(rows({"-": {"value alone": [40.0, 42.0, 44.0]}}), sweep / "results.parquet")
    monkeypatch.setattr(report, "ROWS", tmp_path)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["report", "--add", str(sweep)])
    report.main()
    page = (tmp_path / "docs/study.md").read_text()
    assert "4 cells have a seed, 4 have all 3" in page and page.count("| cell ") == 4 and "P(improvement)" in page
    assert "| value alone | 3 | 42.0 ± 2.0 |" in page
    assert page.count("| robot ") == 3 and "| robot 2 | 2 | 53.0 ± 1.4 |" in page
    assert "| plain 1 | 1 | 10.0 | 10.0 | 10.0 |" in page
    assert (
        "| v2a − v2a without z | -4.0 [" in page
        and "| C | published_hopper | 3 of 6 | 0 of 6 (5) | 27 of 270 |" in page
    )
    for name in ("map_hopper", "baselines_ant", "overview"):
        assert (tmp_path / f"docs/study_{name}.png").stat().st_size > 5000


def test_standing_counts_cells_by_the_better_baseline() -> None:
    same = {method: np.asarray([50.0]) for method in METHODS}
    cells = [
        same | {"v2a": np.asarray([54.0])},
        same | {"v2a": np.asarray([54.0]), "iql_mixed": np.asarray([52.0])},
        same | {"v2a": np.asarray([54.0]), "iql_target": np.asarray([90.0])},
    ]
    row = next(line for line in tables.standing_table(cells) if line.startswith("| v2a |"))
    # Gains of 4, 2 and -36.
    assert row == "| v2a | 1 | 1 | 1 | 1 | -10.0 | +2.0 |"


def test_sentences_have_the_numbers_of_their_cells() -> None:
    def cell(**other: float) -> dict[str, np.ndarray]:
        return {method: np.asarray([other.get(method, 50.0)]) for method in METHODS}

    hopper = {"medium 1000 rows from far expert": cell(v2a=46.0), "expert 1000 rows from same medium": cell(v2a=30.0)}
    found = standing.standings({"hopper": hopper, "ant": {"random 1000 rows from near medium": cell(v2a=54.0)}})
    text = (
        "{every[v2a].behind} of {every[v2a].number}, {other[v2a].ahead}, {controls[v2a].far_behind}, "
        "{hopper[v2a].loss:.1f} and {hopper[v2a].median_loss:.0f}, {hopper_expert_alone[v2a].largest_loss:.0f}, "
        "{hopper_no_expert[v2a].interval}, {hopper[v2a].interval}, {hopper[v2a].loss_interval}, "
        "{walker2d[v2a].loss:.1f}"
    )
    filled = standing.with_numbers(text, found)
    assert filled == "2 of 3, 1, 1, 12.0 and 12, 20, -4.0, -12.0 [-113.6, +89.6], 12.0 [-89.6, 113.6], (not run)\n"
    with pytest.raises(AttributeError, match="lost"):
        standing.with_numbers("{every[v2a].lost}", found)


def test_sentences_are_wrapped_and_tables_of_contents_keep_their_headings() -> None:
    text = "# A heading\nof its own line\n\n- an item\n  " + "word " * 40 + "\n- another\n"
    lines = standing.with_numbers(text, {}).splitlines()
    assert lines[:4] == ["# A heading", "of its own line", "", "- an item " + " ".join(["word"] * 21)]
    assert lines[4].startswith("  word") and lines[5] == "- another" and max(map(len, lines)) <= standing.WIDTH


@pytest.mark.parametrize("mark", ["15.", "-", "+", "#"])
def test_no_wrapped_line_begins_as_a_list_does(mark: str) -> None:
    for length in range(standing.WIDTH - 10, standing.WIDTH + 10):
        lines = standing.with_numbers(f"{'x' * length} by {mark} and more words\n", {}).splitlines()
        assert not any(line.startswith(mark) for line in lines) and " ".join(lines).endswith(
            f"by {mark} and more words"
        )


def test_readme_counts_cells_as_the_rows_do() -> None:
    """README is not generated, and has these counts."""
    found = standing.standings({robot: report.map_cells(robot) for robot in NEAR})["other"]
    text = " ".join((ROOT / "README.md").read_text().split())
    said = re.search(
        r"Of the (\d+) others the published V2A is .* in (\d+) \(ahead in (\d+)\), our default .* in (\d+) \((\d+)\),",
        text,
    )
    assert said is not None
    v2a, default = found["v2a"], found["v2a_supported"]
    assert [int(each) for each in said.groups()] == [v2a.number, v2a.behind, v2a.ahead, default.behind, default.ahead]


def test_baseline_of_the_other_seeds_by_hand() -> None:
    one = {method: np.asarray([20.0, 20.0]) for method in METHODS}
    cell = one | {"iql_target": np.asarray([10.0, 20.0]), "iql_mixed": np.asarray([15.0, 10.0])}
    # Of the same seeds the target alone is better, 15. Seed 1 says so of seed 0, where it has 10; seed 0 says that
    # mixing is better, which has 10 in seed 1.
    assert tables.standing_of([cell], "v2a").mean == 5.0 and spread.crossed([cell], "v2a").mean == 10.0
    alone = {method: np.asarray([50.0]) for method in METHODS}
    assert "| v2a | +5.0 | +10.0 |" in spread.crossed_table([cell, alone])


def test_gains_of_the_picture_by_hand() -> None:
    cells = {name: {method: np.asarray([50.0]) for method in METHODS} for name in ("a", "b")}
    cells["a"] |= {"iql_mixed": np.asarray([60.0, 70.0]), "v2a": np.asarray([68.0])}
    scores = {"iql_target": 40.0, "iql_mixed": 20.0, "v2a_supported": 50.0, "iql_source": 0.0}
    values = {method: {"lower_value": value} for method, value in scores.items()}
    groups = [selection.Group("a", seed, scores, values, more) for seed, more in (("0", True), ("1", None))]
    gains = report.gains_of(cells, groups)
    assert gains["v2a"] == {"a": 3.0, "b": 0.0} and gains["iql_target"] == {"a": -15.0, "b": 0.0}
    assert gains["iql_mixed"] == {"a": 0.0, "b": 0.0}
    # The filter has the highest value; of the second seed it is not known what the source earned.
    assert gains["v2a choose"] == {"a": 10.0} and "v2a choose" not in report.gains_of(cells, ())


def test_spread_over_seeds_by_hand(tmp_path: Path) -> None:
    # Variances 2, 8 and 0 with 1, 2 and 1 degrees of freedom; the cells with one seed say nothing.
    cells = {"a": [1.0, 3.0], "b": [0.0, 2 * 2**0.5, 4 * 2**0.5], "c": [5.0, 5.0], "d": [90.0]}
    pq.write_table(rows({cell: {"otdf": scores} for cell, scores in cells.items()}), tmp_path / "one.parquet")
    few = {cell: {"igdf": [1.0, 2.0]} for cell in ("a", "b")} | {"c": {"igdf": [1.0]}}
    pq.write_table(rows(few), tmp_path / "other.parquet")
    pq.write_table(pa.table({"axis/method": ["otdf"]}), tmp_path / "without_cells.parquet")
    (line,) = spread.spread_table(tmp_path)[2:]
    assert line == f"| otdf | 3 | 7 | {(18 / 4) ** 0.5:.1f} | {2**0.5:.1f} | {8**0.5:.1f} |"


def test_extent_counts_what_was_finished_of_what_was_designed(tmp_path: Path) -> None:
    sweep = {"axes": {"cell": {"a": {}, "b": {}}, "method": ["v2a", "otdf"], "seed": {"0": {}, "1": {}, "2": {}}}}
    for name in ("map_tiny", "map_whole", "choice_tiny", "choice_begun"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(sweep))
    run_so_far = [rows({"a": {"v2a": [1.0, 2.0]}, "b": {"iql": [1.0]}}), rows({"b": {"otdf": [1.0]}}, "failed: NaN")]
    pq.write_table(pa.concat_tables(run_so_far), tmp_path / "map_tiny.parquet")
    pq.write_table(rows({"a": {"v2a": [1.0, 2.0, 3.0]}, "b": {"v2a": [1.0]}}), tmp_path / "map_whole.parquet")
    chosen_from = [{"task": "a", "seed": "0", "method": "v2a"}, {"task": "b", "seed": "0", "method": "v2a"}]
    pq.write_table(pa.Table.from_pylist(chosen_from), tmp_path / "selection_choice_tiny.parquet")
    assert extent.report(tmp_path, tmp_path)[2:] == [
        "| A | map_tiny | 1 of 2 | 0 of 2 (3) | 2 of 12 |",
        "| A | map_whole | 2 of 2 | 1 of 2 (3) | 4 of 12 |",
        "| D | choice_begun | 0 of 2 | 0 of 2 (3) | 0 of 12 |",
        "| D | choice_tiny | 2 of 2 | 0 of 2 (3) | 2 of 12 |",
    ]


def test_a_policy_that_was_trained_twice_is_compared_with_itself(tmp_path: Path) -> None:
    near, far = {"target": {"path": "near"}}, {"target": {"path": "far"}}
    sweeps = {
        "one": {"cell": {"a": near, "b": far}, "method": ["v2a", "otdf"], "seed": {"0": {"seed": 0}}},
        "two": {"cell": {"elsewhere": near}, "method": {"ours": {"method": "v2a"}}, "seed": {"0": {"seed": 0}}},
    }
    for name, axes in sweeps.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"settings": {"policy": {}}, "axes": axes}))

    def write(name: str, *policies: tuple[str, str, float, list[float]], processor: str | None = None) -> None:
        table = [
            {"axis/cell": cell, "axis/method": method, "axis/seed": "0", "status": "finished"}
            | {"seconds": seconds, "returns": returns, "normalized_score_mean": float(np.mean(returns))}
            | {"processor": processor}
            for cell, method, seconds, returns in policies
        ]
        pq.write_table(pa.Table.from_pylist(table), tmp_path / f"{name}.parquet")

    write("one", ("a", "v2a", 1.0, [5.0, 6.0]), ("b", "v2a", 1.5, [5.0, 6.0]), ("a", "otdf", 1.0, [5.0]))
    for seconds, returns, line in ((2.0, [5.0, 6.0], "1 | 1"), (2.0, [5.0, 6.5], "1 | 0"), (1.0, [5.0, 6.0], None)):
        write("two", ("elsewhere", "ours", seconds, returns))
        text = repeated.report(tmp_path, tmp_path)
        assert (f"| one | two | {line} |" in text) if line else "| one |" not in text
    (tmp_path / "again").mkdir()
    write("again/one", ("a", "otdf", 3.0, [5.0]), ("b", "v2a", 3.0, [5.0, 6.1]))
    text = repeated.report(tmp_path, tmp_path)
    assert "| one | one, run again | 2 | 1 |" in text and "processor" not in text
    write("again/one", ("a", "otdf", 3.0, [5.0]), ("b", "v2a", 3.0, [5.0, 6.5]), processor="another")
    text = repeated.report(tmp_path, tmp_path)
    assert "run again" not in text and "| v2a | 1 | 0 | 0.2 | 0.2 |" in text and "| otdf | 1 | 1 | 0.0 | 0.0 |" in text


def test_screen_sees_where_an_action_is_worth_the_opposite(tmp_path: Path) -> None:
    """The positive control: the commoner dynamics decide A(s, a), and z mends it, but z of other episodes does not."""
    table = where_z_matters.laboratory({where_z_matters.RARE: 1_000, where_z_matters.COMMON: 4_000})
    advantage, modality = SparseQConfig(width=32, learning_rate=3e-3), ModalityConfig(num_steps=50, learning_rate=1e-3)
    screened = where_z_matters.screen(where_z_matters.LABORATORY, table, [200], tmp_path, advantage, modality)
    rows = {row["candidate"]: row for row in screened}
    assert rows["A(s, a)"]["probe"] == 1.0
    for candidate in ("A(s, a)", "A(s, a), seed 1", "A(s, a, shuffled z)"):
        assert rows[candidate]["rank_rare"] < -0.9
        assert rows[candidate]["rank_common"] > 0.9
    for candidate in ("A(s, a, z)", "A(s, a, true z)", "oracle 1 by oracle 2"):
        assert rows[candidate]["rank_rare"] > 0.3, candidate
        assert rows[candidate]["discordant"] < rows["A(s, a)"]["discordant"] - 0.1
    assert rows["A(s, a), seed 1"]["agrees_with_a"] > rows["A(s, a, true z)"]["agrees_with_a"]


def test_reversed_motors_are_the_stock_robot_with_opposite_actions() -> None:
    table = where_z_matters.rolled_out("hopper, all motors reversed")
    domain, behavior = np.asarray(table.domain), np.asarray(table.behavior)
    for name in ("random", "medium"):
        rare, common = (
            table.select(np.flatnonzero((domain == label) & (behavior == name)))
            for label in (where_z_matters.RARE, where_z_matters.COMMON)
        )
        count = rare.num_transitions
        np.testing.assert_array_equal(rare.next_observation, common.next_observation[:count])
        np.testing.assert_array_equal(rare.action, -common.action[:count])
    assert len(set(table.episode_id)) == table.num_episodes


def test_cost_counts_an_artifact_once_and_names_its_sweep(tmp_path: Path) -> None:
    def record(store: str, key: str, stage: str, name: str, seconds: float) -> None:
        folder = tmp_path / store / stage / key
        folder.mkdir(parents=True)
        content = {"key": key, "stage": stage, "seconds": seconds, "config": {"name": name}}
        (folder / "artifact.json").write_text(json.dumps(content))

    record("one", "a", "policy", "map_hopper_some_cell_0", 3600.0)
    record("one", "b", "alignment", "map_hopper_ceiling_cell_0", 1800.0)
    record("one", "c", "policy", "demo", 3600.0)
    record("other", "a", "policy", "map_hopper_some_cell_0", 3600.0)
    record("other", "d", "policy", "map_hopper", 7200.0)
    sweeps = ["map_hopper", "map_hopper_ceiling", "real"]
    rows = {row["key"]: row for store in ("one", "other") for row in cost.cost_of(tmp_path / store, sweeps)}
    assert cost.report(list(rows.values())).splitlines()[2:] == [
        "| map_hopper | 2 | 3.0 | 0.0 |",
        "| map_hopper_ceiling | 0 | 0.0 | 0.5 |",
        "| all | 2 | 3.0 | 0.5 |",
    ]
