"""The progress display: what it says without a terminal, and what it costs with one."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from v2a_ray.cli.display import MAX_BARS, StageDisplay
from v2a_ray.engine.plan import Node
from v2a_ray.engine.store import Artifact
from v2a_ray.orchestration.train.listener import Event
from v2a_ray.report.tally import RETURN, SCORE, Tally, total_line

LONG_NAME = "policy " + "a-label-that-is-longer-than-any-terminal " * 4


def policy(number: int, name: str = "") -> Node:
    return Node("policy", name or f"policy near {number}", str(number))


def event(node: Node, step: int, **metrics: float) -> Event:
    return Event(node.key, node.name, step, 100, metrics)


def made(node: Node, cached: bool = False) -> Artifact:
    return Artifact(node.stage, node.key, Path("/store/policy/key"), 12.0, cached)


@pytest.fixture
def plain() -> StageDisplay:
    return StageDisplay(Console(file=io.StringIO(), width=60))


def said(display: StageDisplay) -> list[str]:
    file = display.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


def test_without_a_terminal_every_event_is_a_dated_line_with_full_names(plain: StageDisplay) -> None:
    nodes = [policy(0, LONG_NAME), policy(1), policy(2)]
    with plain:
        plain.planned("policies", 648, "a free core")
        for node in nodes:
            plain.started(node)
        plain.progressed(event(nodes[0], 50, **{RETURN: 900.0, SCORE: 31.25}))
        plain.done(nodes[0], made(nodes[0]), 33.0)
        plain.failed(nodes[1], "update step 7: the loss is not finite")
        plain.stopped(nodes[2], 5000)
    lines = said(plain)
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S", line) for line in lines)
    assert [line[20:] for line in lines[3:]] == [
        f"{LONG_NAME}: step 50 of 100, score 31.2",
        f"computed {LONG_NAME} · 12.0 s · score 33.0 · 1 of 648",
        "failed   policy near 1: update step 7: the loss is not finite",
        "stopped  policy near 2 at step 5,000, by the scheduler",
    ]


def test_nodes_of_one_name_are_told_apart_by_their_artifacts(plain: StageDisplay) -> None:
    near, far = Node("alignment", "alignment", "near"), Node("alignment", "alignment", "far")
    plain.planned("stages", 2)
    for node in (near, far):
        plain.started(node)
    plain.progressed(event(near, 70))
    plain.progressed(event(far, 10))
    plain.done(near, made(near))
    plain.progressed(event(near, 100))  # late
    state = plain.tally.snapshot()
    assert [(each["name"], each["step"]) for each in state["running"]] == [("alignment", 10)]
    assert (state["done"], state["num_running"]) == (1, 1)


def test_what_a_later_plan_finds_again_is_not_told_twice(plain: StageDisplay) -> None:
    old, new, other = policy(0), policy(1), policy(2)
    with plain:
        plain.planned("stages", 2)
        plain.done(old, made(old, cached=True))
        plain.done(new, made(new))
        plain.planned("policies", 3)
        for node in (old, new, other):
            plain.done(node, made(node, cached=True))
    assert [" ".join(line[20:].split()[:5]) for line in said(plain)] == [
        "reused policy near 0 ·",
        "computed policy near 1 ·",
        "reused policy near 2 ·",
    ]
    assert plain.tally.num_over == 3


def test_bars_end_when_their_work_ends_and_cost_the_same_however_many_there_were() -> None:
    display = StageDisplay(Console(file=io.StringIO(), width=120, force_terminal=True))

    def cost(numbers: range) -> float:
        start = time.process_time()
        for number in numbers:
            node = policy(number)
            display.started(node)
            display.progressed(event(node, 100))
            assert len(display.progress.tasks) <= MAX_BARS
            if number >= 20:
                ended = policy(number - 20)
                display.done(ended, made(ended), 1.0)
        return time.process_time() - start

    first = cost(range(500))
    cost(range(500, 4000))
    assert cost(range(4000, 4500)) < 5 * first
    for number in range(4480, 4500):
        display.failed(policy(number), "died")
    assert display.progress.tasks == [] and display.tally.running == {}


def test_one_line_says_how_far_all_is() -> None:
    tally = Tally()
    tally.plan("policies", 648, "a free core")
    tally.since -= 600
    for number in range(12):
        tally.start(str(number), f"policy {number}")
        tally.finish(str(number), f"policy {number}", found=False, score=float(number))
    tally.fail("12", "policy 12", "died")
    tally.start("13", "policy 13")
    tally.progress("13", 50, 100, {})
    # 13.5 policies' work took 10 minutes, 634.5 are left.
    assert total_line(tally.snapshot()) == (
        "12 of 648 policies done · 1 running · 1 failed · 634 wait for a free core · 7 h 50 min left · "
        "best 11.0: policy 11"
    )
    tally.plan("stages", 3, "a free core", then="648 policies")
    tally.queue("a")
    assert total_line(tally.snapshot()).startswith(
        "0 of 3 stages done · 1 waits for a free core · 2 wait for what comes before · then 648 policies"
    )


def test_work_that_goes_on_does_not_count_what_was_done_before() -> None:
    tally = Tally()
    tally.plan("policies", 2)
    tally.since -= 100
    tally.start("a", "policy a")
    tally.progress("a", 50, 100, {"resumed": 1.0})
    tally.progress("a", 75, 100, {})
    # A quarter of a policy took 100 seconds; a quarter and a whole one are left.
    assert tally.seconds_left == pytest.approx(500, rel=0.01)
