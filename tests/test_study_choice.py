"""Part D of the study: choosing between policies without a simulator, from rows."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.study import earned_less, rule, selection
from benchmarks.study.design import LEFT_OUT, SUPPORTED
from tests.test_study import rows


def finished_sweep(folder: Path, by_cell: dict[str, dict[str, list[float]]]) -> Path:
    folder.mkdir()
    pq.write_table(rows(by_cell), folder / "results.parquet")
    return folder


@pytest.mark.parametrize("source_earns_more", [True, False])
def test_selection_takes_the_highest_value_and_says_what_it_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source_earns_more: bool
) -> None:
    # The policies have no data here.
    monkeypatch.setattr(selection, "_source_earns_more", lambda folder: source_earns_more)
    scores = {"iql_target": 40.0, "iql_mixed": 20.0, "v2a_supported": 50.0}
    values = {"iql_target": 3.0, "iql_mixed": 2.0, "v2a_supported": 1.0, "iql_source": 4.0}
    by_cell = {"near": {method: [score] for method, score in scores.items()}, "unfinished": {"iql_target": [40.0]}}
    tiny = finished_sweep(tmp_path / "tiny", by_cell)
    more = finished_sweep(tmp_path / "more", {"near": {"iql_source": [30.0]}})
    (tmp_path / "tiny-unfinished-0-iql_target.json").write_text(
        json.dumps({"policies": [{"policy": "elsewhere", "lower_value": 1.0, "td_error": 1.0}]})
    )
    for method, value in values.items():
        policy = {"policy": f"elsewhere/trials/{method}", "lower_value": value, "td_error": value}
        sweep = more if method == "iql_source" else tiny
        (tmp_path / f"{sweep.name}-near-0-{method}.json").write_text(json.dumps({"policies": [policy]}))
    written = tmp_path / "selection_tiny.parquet"
    selection.write_rows(selection.measured([tiny], tmp_path), written)
    (group,) = selection.read_groups(written)
    assert group.chosen("target or mix", "fitted_q_lower") == "iql_target"
    assert group.chosen("target or mix", "td_error") == "iql_mixed"
    text = selection.report([group])
    # Without the source alone, the way of `v2a choose` is known only where that is none of its candidates.
    shown = "20.0 (iql_mixed 1)" if source_earns_more else "40.0 (iql_target 1)"
    assert f"| near | {shown} | 40.0 | 40.0 | 20.0 | 50.0 |" in text
    assert "| target or mix | fitted_q_lower | 40.0 | 40.0 | 0.0 |" in text
    assert "| filter or mix | fitted_q_lower | 20.0 | 40.0 | 20.0 |" in text
    assert "iql_source" not in text
    # A later sweep adds a candidate.
    selection.write_rows(selection.measured([more], tmp_path), written)
    text = selection.report(selection.read_groups(written))
    best = "30.0 (iql_source 1)" if source_earns_more else "40.0 (iql_target 1)"
    assert f"| near | {best} | 40.0 | 40.0 | 20.0 | 50.0 | 30.0 |" in text
    chosen = "30.0 | 40.0 | 10.0" if source_earns_more else "20.0 | 40.0 | 20.0"
    assert f"| filter, mix or source | fitted_q_lower | {chosen} |" in text
    chosen = "30.0 | 40.0 | 10.0" if source_earns_more else "40.0 | 40.0 | 0.0"
    assert f"| filter, mix or source; else target or filter | fitted_q_lower | {chosen} |" in text


def test_a_way_that_asks_what_the_source_earned_needs_to_know_it() -> None:
    scores = dict.fromkeys(("iql_target", "iql_mixed", "v2a_supported", "iql_source"), 1.0)
    for earns_more, known in ((True, True), (False, True), (None, False)):
        group = selection.Group("a", "0", scores, {}, earns_more)
        assert group.has("target or mix") and group.has("any of the four; else target or filter") == known
    assert not selection.Group("a", "0", {"iql_target": 1.0}, {}, True).has("target or mix")


def test_overview_by_hand() -> None:
    def group(task: str, seed: int, source: float, more: bool) -> selection.Group:
        scores = {"iql_target": 40.0, "iql_mixed": 20.0, "v2a_supported": 50.0, "iql_source": source}
        values = {"iql_target": 3.0, "iql_mixed": 5.0, "v2a_supported": 2.0, "iql_source": 4.0 + seed}
        return selection.Group(task, str(seed), scores, {m: {"lower_value": v} for m, v in values.items()}, more)

    # Chosen: mix 20, source 90, target 40; the better baseline has 40 everywhere.
    groups = [group("a", 0, 70.0, True), group("a", 2, 90.0, True), group("b", 0, 70.0, False)]
    text = selection.overview({"tiny": groups, "without a source": []})
    row, every, but_published, other = text.splitlines()[2:]
    assert text.count("tiny") == 1 and "without" not in text and every == row.replace("tiny", "all")
    assert but_published == row.replace("tiny", "all but the published suite")
    assert other == row.replace("tiny", "of these, other dynamics")
    assert row.startswith("| tiny | 3 | 40.0 | 43.3, 20.0 | 50.0, 20.0 | 50.0, 20.0 | +7.5 [")
    # Task a: (20 + 90) / 2 is chosen; task b: 40, which is the better baseline.
    assert row.endswith("| +7.5 | 0 of 2 |")
    assert selection.tasks_behind(groups[:1], "filter, mix or source") == "1 of 1"
    tasks = {
        "choice_published_tiny": [group("c", 0, 0.0, False)],
        "tiny": [group("bad target, same robot", 0, 0.0, True)],
    }
    rows_of = {line.split(" | ")[0][2:]: line.split(" | ")[1] for line in selection.overview(tasks).splitlines()[2:]}
    assert rows_of.pop("of these, the target's own dynamics") == "1"
    assert rows_of == {**dict.fromkeys(tasks, "1"), "all": "2", "all but the published suite": "1"}


def test_the_rule_for_mixing_in_every_task_by_hand() -> None:
    def group(task: str, target: float, mixed: float, more: bool | None) -> selection.Group:
        return selection.Group(task, "0", {"iql_target": target, "iql_mixed": mixed}, {}, more)

    # Right in a and b; in c mixing loses 9, in d not mixing 3. Nobody knows what the source of e earned.
    known = [group("a", 0, 5, True), group("b", 7, 1, False), group("c", 9, 0, True), group("d", 0, 3, False)]
    (line,) = rule.of_choices({"tiny": [*known, group("e", 0, 1, None)], "none": []})[2:]
    assert line == "| tiny | 4 | 2 | 2 | 3.0 | 3.8 | 2.0 |"


def test_choice_without_what_replays_far_stands_beside_that_of_the_whole_source() -> None:
    def group(task: str, seed: int, source: float) -> selection.Group:
        scores = {"iql_target": 4.0, "iql_mixed": 10.0, "v2a_supported": 1.0, "iql_source": source}
        values = {method: {"lower_value": score} for method, score in scores.items()}
        return selection.Group(task, str(seed), scores, values, source_earns_more=True)

    groups = [group("a", 0, 8.0), group("a", 1, 30.0), group(f"a{LEFT_OUT}", 0, 50.0), group("b", 0, 9.0)]
    (row,) = selection.replayed_table({"robot": groups})[2:]
    assert row == "| robot: a | 1 | 10.0 | 20.0 (iql_mixed 1, iql_source 1) | 50.0 (iql_source 1) |"


def test_choice_is_held_against_the_filters_of_the_same_tasks(tmp_path: Path) -> None:
    def group(task: str, chosen: float) -> selection.Group:
        scores = {"iql_target": 0.0, "iql_mixed": chosen, "v2a_supported": 0.0, "iql_source": 0.0}
        values = {method: {"lower_value": float(method == "iql_mixed")} for method in scores}
        return selection.Group(task, "0", scores, values, source_earns_more=True)

    filters = {"a": {"v2a": [10.0, 99.0], "iql_mixed": [1.0]}, "b": {"v2a": [50.0]}, "elsewhere": {"v2a": [90.0]}}
    pq.write_table(rows(filters), tmp_path / "rows")
    pq.write_table(rows({"a": {"otdf": [1.0]}}, status="failed: NaN"), tmp_path / "failed")
    groups = [group("a", 20.0), group("b", 40.0), group("c", 70.0)]
    *_, row = lines = selection.against_filters(groups, [tmp_path / "rows", tmp_path / "failed"])
    # Seed 1 of task a and task c are known on one side alone.
    assert row == "| v2a | 2 | 30.0 | 30.0 | 0.50 |" and len(lines) == 3


def test_where_the_source_earned_less_methods_are_held_against_the_better_baseline(tmp_path: Path) -> None:
    scores = {"iql_target": 40.0, "iql_mixed": 50.0, "v2a_supported": 30.0}
    values = {"iql_target": 3.0, "iql_mixed": 9.0, "v2a_supported": 4.0, "otdf": 2.0}

    def policies(task: str, more: bool, others: dict[str, float]) -> list[dict[str, object]]:
        return [
            {"task": task, "seed": "0", "method": method, "score": score, "source_earns_more": more}
            | {"lower_value": values[method], "td_error": 1.0}
            for method, score in {**scores, **others}.items()
        ]

    known = [*policies("a", False, {"otdf": 60.0}), *policies("b", False, {}), *policies("c", True, {"otdf": 0.0})]
    selection.write_rows(known, tmp_path / "choice.parquet")
    alone = {task: {SUPPORTED: [score]} for task, score in {"a": 44.0, "b": 48.0, "c": 0.0}.items()}
    pq.write_table(rows(alone), tmp_path / "supported_walker2d.parquet")
    pq.write_table(rows({"b": {"otdf": [52.0]}, "elsewhere": {"otdf": [1.0]}}), tmp_path / "otdf_walker2d.parquet")
    tasks = earned_less.read_tasks({"walker2d_map": selection.read_groups(tmp_path / "choice.parquet")}, tmp_path)
    # The choice takes the filter, which has the higher value; critics of OTDF were fitted in task a alone.
    assert earned_less.cell_table(tasks)[2:] == [
        "| walker2d_map: a | 50.0 | 40.0 | 44.0 | 30.0 | 60.0 | 30.0 | iql_target |",
        "| walker2d_map: b | 50.0 | 40.0 | 48.0 | 30.0 | 52.0 | 30.0 |  |",
    ]
    row, *_, elsewhere = earned_less.summary_table(tasks)[2:]
    means = "50.0 | 40.0, 10.0, 2 | 46.0, 6.0, 1 | 30.0, 20.0, 2 | 56.0, -2.0, 0 | 30.0, 20.0, 2"
    assert row == f"| walker2d_map | 2 | {means} |" and elsewhere == row.replace("walker2d_map", "not hopper")
