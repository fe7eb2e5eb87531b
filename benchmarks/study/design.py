"""Parts A, C, D and E of the study: which cells are run, chosen before any of them is.

    python -m benchmarks.study.design      # writes tune_configs/study/*.yaml, and prints the cells

Part A, the map of help. A cell is a target (quality, size, how it was drawn) and a source (dynamics, behaviour). All
combinations are 288 per robot; those that are run are the ones from which the effects of all factors, and how quality
and size of the target change what the dynamics of the source are worth, are estimated best: a D-optimal design of
`NUM_CELLS`, found by exchanging cells until nothing improves. HalfCheetah and Ant have the corners alone.

Every cell has the same target rows, learner, steps and evaluation seeds for each method. A seed draws its own target,
trains its own columns and its own policy, so a spread over seeds is that of everything.

Part C, the published suite in the published setting. The target is a tenth of a pool of a million transitions, drawn
row by row with replacement; the source is of the same quality and three dynamics, 300,000 transitions. Rewards and
states are scaled as ours are, and raw as published code has them.

Part D on Walker2d's map: a frozen test of two rules, whichever candidates have the higher value. `filter, mix or
source`, which is what `v2a choose` does; and `filter, mix or source; else target or filter`, which was found on
Hopper's map: what earned less than the target is not mixed, and the target alone is a candidate there. There it has
41.4 instead of 41.5 on average, and its largest loss to the better baseline is 18 instead of 39. The tag
`study-d-gate` is from before any of these values was known. On HalfCheetah's corners a third rule is tested, `any of
the four; else target or filter`, which was found on Walker2d's map; tag `study-d-four`. It is what `v2a choose` does
now, and is tested in Hopper's part of the published suite, beside the published methods; tag `study-d-published`.
Whether it is better to leave out first what replays far (`replayed`): tag `study-d-replayed`.

Part E, data of others. Both directions, shifted sources with the stock robot as target and the reverse, and a target of
random actions, on OTDF's and our third-party files of Hopper and HalfCheetah.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.study.cells import (
    FAR,
    NEAR,
    QUALITIES,
    Cell,
    corners,
    design,
    layer,
    source_domains,
)
from v2a_ray.experiments.choice import CANDIDATES

FOLDER = Path(__file__).parents[2] / "tune_configs" / "study"
SEEDS = (0, 1, 2)
REAL_SEEDS = (0, 1, 2, 3, 4)
METHODS = ("iql_target", "iql_mixed", "v2a", "v2a_residual", "v2a_supported")
BASELINE_METHODS = ("iql_target", "iql_mixed", "iql_source")
"""What trains without columns, so that it is known of a robot long before its map is."""
POOL_TRANSITIONS = 100_000


def sweep(robot: str, cells: Sequence[Cell], part: str = "map", methods: Sequence[str] = METHODS) -> dict[str, Any]:
    """The sweep over methods in a robot's cells: all of the map, or a part of it that has a file of its own."""
    labelled = {cell.label: layer(cell, robot, source_domains(cell, robot)) for cell in cells}
    return {"name": f"{part}_{robot}", "settings": SETTINGS, "axes": {"cell": labelled, **_axes(methods)}}


def ceiling(robot: str, cells: Sequence[Cell], suffix: str = "ceiling", method: str = "iql_mixed") -> dict[str, Any]:
    """IQL on the mix of what an oracle would choose of a source: the near dynamics alone, where there are others."""
    labelled = {cell.label: layer(cell, robot, [NEAR[robot]]) for cell in cells if cell.dynamics == "both"}
    return {"name": f"map_{robot}_{suffix}", "settings": SETTINGS, "axes": {"cell": labelled, **_axes([method])}}


def far_alone(robot: str, cells: Sequence[Cell]) -> dict[str, Any]:
    """Either of the far dynamics alone where a source has both: one behaviour, and dynamics that are far all the same.

    Beside the near one, the ceiling's control. Where there are no others, a test of a rule that was found on Hopper's
    and Walker2d's cells with a near source: a source that earned more than the target is mixed from the one dynamics
    alone in which the target's recorded actions lead nearest to where they led (`v2a data replay`; tag
    `study-nearest`).
    """
    labelled = {
        f"{cell.label}, {domain} alone": layer(cell, robot, [domain])
        for cell in cells
        if cell.dynamics in ("both", "far")
        for domain in FAR
    }
    return {"name": f"map_{robot}_far_alone", "settings": SETTINGS, "axes": {"cell": labelled, **_axes(["iql_mixed"])}}


SUPPORTED = "iql_target, supported"
SUPPORT = {"policy": {"density_weight": 0.1}, "density": {"fit_to": "target"}}
PARTS: dict[str, dict[str, Any]] = {
    "iql_source": {"method": "iql_source"},
    SUPPORTED: {"method": "iql_target", **SUPPORT},
    "iql_mixed, supported": {"method": "iql_mixed", **SUPPORT},
    "v2a_supported, no support": {"method": "v2a_supported", "policy": {"density_weight": 0.0}},
    "v2a_supported, support of the mix": {"method": "v2a_supported", "density": {"fit_to": "mixed"}},
}
"""Of the default method: the filter without the support term, the term without the filter, and its other form. And the
source alone, the other end of a mix: half of every mixed batch is the target, however bad it is."""


def parts(robot: str, cells: Sequence[Cell]) -> dict[str, Any]:
    """Part D: the sweep over the parts of the default in a robot's cells, the ones with most to tell first."""
    order = sorted(cells, key=lambda cell: PARTS_FIRST.index(cell.label) if cell.label in PARTS_FIRST else len(cells))
    labelled = {cell.label: layer(cell, robot, source_domains(cell, robot)) for cell in order}
    return {"name": f"parts_{robot}", "settings": SETTINGS, "axes": {"cell": labelled, **_axes(PARTS)}}


PARTS_FIRST = (
    "medium 1000 rows from near medium-replay",
    "random 1000 episodes from same expert",
    "expert 10000 episodes from same medium-replay",
    "medium 10000 episodes from far medium",
    "medium-replay 1000 rows from same medium",
    "expert 1000 rows from far expert",
    "random 100000 rows from same medium",
    "medium-replay 10000 rows from near expert",
)
"""Where target, mix and default differ most in the map's first seed, which was known."""

REAL_METHODS = ("iql_target", "iql_mixed", "igdf", "dvdf", "otdf", "v2a", "v2a_residual", "v2a_supported")
REAL_SHIFTS = {"gravity_0.5": "gravity-0.5", "kinematic": "otdf-kinematic", "morph": "otdf-morph"}
REAL_TARGET_TRANSITIONS = 5_000
"""As many as every file of OTDF holds."""


def real() -> dict[str, Any]:
    """The sweep over all methods on recorded data; the files are named relative to `data_root`."""

    def part(robot: str, file: str, domain: str, behavior: str) -> dict[str, Any]:
        return {"domain": f"{robot}/{domain}", "behavior": behavior, "path": f"{robot}_{file}_{behavior}.hdf5"}

    cells = {}
    for robot in ("hopper", "halfcheetah"):
        shifted = [
            part(robot, file, domain, behavior)
            for file, domain in REAL_SHIFTS.items()
            for behavior in ("medium", "expert")
        ]
        stock = [part(robot, "stock", "stock", behavior) for behavior in ("random", "medium", "expert")]
        first = {"num_transitions": REAL_TARGET_TRANSITIONS}
        for behavior in ("medium", "random"):
            target = part(robot, "stock", "stock", behavior) | first
            cells[f"{robot} {behavior}, from three shifted robots"] = {"target": target, "sources": shifted}
        target = part(robot, "kinematic", "otdf-kinematic", "medium")
        cells[f"{robot} kinematic medium, from the stock robot"] = {"target": target, "sources": stock}
    axes = {"method": list(REAL_METHODS), "seed": {str(seed): {"seed": seed} for seed in REAL_SEEDS}}
    return {"name": "real", "settings": SETTINGS, "axes": {"cell": cells, **axes}}


def real_alone() -> dict[str, Any]:
    """Each of the three shifted robots alone, where the target acted at random; see `far_alone`."""
    cells = {}
    for label, cell in real()["axes"]["cell"].items():
        for file in REAL_SHIFTS if " random, " in label else ():
            sources = [source for source in cell["sources"] if f"_{file}_" in source["path"]]
            cells[f"{label}, {file} alone"] = cell | {"sources": sources}
    axes = {"method": ["iql_mixed"], "seed": {str(seed): {"seed": seed} for seed in REAL_SEEDS}}
    return {"name": "real_alone", "settings": SETTINGS, "axes": {"cell": cells, **axes}}


PUBLISHED_QUALITIES = ("medium-replay", "medium", "medium-expert")
PUBLISHED_POOL, PUBLISHED_TARGET, PUBLISHED_SOURCE = 1_000_000, 100_000, 300_000
PUBLISHED_DOMAINS = ("gravity-0.5", "otdf-kinematic", "otdf-morph")
TRANSPORT = {"alignment": {"max_target_transitions": 5_000}}
"""The plan to all of a target takes hours; its mean cost to a twentieth of it is the same but for noise."""
PUBLISHED_METHODS: dict[str, dict[str, Any]] = {
    "iql_target": {"method": "iql_target"},
    "iql_mixed": {"method": "iql_mixed"},
    "igdf": {"method": "igdf"},
    "otdf": {"method": "otdf", **TRANSPORT},
    "dvdf": {"method": "dvdf"},
    "v2a": {"method": "v2a"},
    "v2a without z": {"method": "v2a", "advantage": {"conditioning": "none"}},
    "v2a_ot": {"method": "v2a_ot", **TRANSPORT},
    "v2a_supported": {"method": "v2a_supported"},
}
PUBLISHED_FORMS: dict[str, dict[str, Any]] = {
    "scaled": {},
    "raw": {"preprocessing": {"reward_scale": 1.0, "standardize_observations": False}},
}


def published(robot: str) -> dict[str, Any]:
    """The sweep over a robot's part of the published suite, raw as published; Hopper and Walker2d in our form too."""
    cells = {}
    forms = [form for form in PUBLISHED_FORMS if form == "raw" or robot in ("hopper", "walker2d")]
    for form, quality in itertools.product(forms, PUBLISHED_QUALITIES):
        cell = Cell(quality, PUBLISHED_TARGET, "rows", "far", quality)
        own = layer(cell, robot, PUBLISHED_DOMAINS, PUBLISHED_SOURCE)
        own["target"]["path"] += "_million"
        cells[f"{quality}, {form}"] = own | PUBLISHED_FORMS[form]
    axes = _axes(PUBLISHED_METHODS, REAL_SEEDS)
    return {"name": f"published_{robot}", "settings": PUBLISHED_SETTINGS, "axes": {"cell": cells, **axes}}


TRANSPORTED = {"otdf": PUBLISHED_METHODS["otdf"]}
MAY_EARN_LESS = ("medium", "expert")
"""Targets beside which the map has sources that earned less."""


def transported(robot: str, cells: Sequence[Cell]) -> dict[str, Any]:
    """OTDF in a robot's cells of the map, first where the source may have earned less than the target.

    It leads in Hopper's part of the published suite, whose sources earn no more than the target, and where `v2a choose`
    fails. In Hopper's six cells of the map with a medium or an expert's target and a source that earned less, it has 60
    points, the target alone 50, the default 56 and the better baseline 54; it is ahead of the target alone in five, and
    52 points behind it beside ten episodes of an expert. So two rules are tested on the other robots: where the source
    earned no more, OTDF; or whichever of OTDF and the target alone has the higher value. Tag `study-d-otdf`.
    """
    order = sorted(cells, key=lambda cell: cell.quality not in MAY_EARN_LESS)
    labelled = {cell.label: layer(cell, robot, source_domains(cell, robot)) for cell in order}
    return {"name": f"otdf_{robot}", "settings": SETTINGS, "axes": {"cell": labelled, **_axes(TRANSPORTED)}}


def transported_task() -> dict[str, Any]:
    """The same for the one task of `choice_halfcheetah.yaml` whose source earned less."""
    content = yaml.safe_load((FOLDER / "choice_halfcheetah.yaml").read_text())
    task = "expert target, near robots"
    axes = content["axes"] | {"task": {task: content["axes"]["task"][task]}, "method": TRANSPORTED}
    return content | {"name": "otdf_choice_halfcheetah", "axes": axes}


def supported(suite: Mapping[str, Any]) -> dict[str, Any]:
    """The target alone with the support term of OTDF and of our default, in the cells of a map or published suite.

    In Hopper's eight cells of the map whose source earned no more than the target, it has 63.5 points without a source,
    OTDF 63.4 and the target alone 53.3. Is it the term, and not the source, on the other robots and in the published
    suite too? There the rule is: where the source earned no more, the target alone with the term. Tag
    `study-d-supported`.
    """
    name = f"supported_{suite['name'].removeprefix('map_')}"
    return {**suite, "name": name, "axes": suite["axes"] | {"method": {SUPPORTED: PARTS[SUPPORTED]}}}


def published_choice(robot: str) -> dict[str, Any]:
    """The policies to choose from in a robot's cells of the published suite; on Hopper OTDF is among the others."""
    suite = published(robot)
    with_otdf = {method: {"method": method} for method in CANDIDATES} | TRANSPORTED
    axes = _axes(CANDIDATES if robot == "hopper" else with_otdf, REAL_SEEDS)
    return suite | {"name": f"choice_published_{robot}", "axes": {"cell": suite["axes"]["cell"], **axes}}


REPLAYED = {
    "walker2d": (
        Cell("random", 100_000, "episodes", "both", "expert"),
        Cell("medium-replay", 1_000, "episodes", "both", "expert"),
        Cell("random", 10_000, "episodes", "both", "medium"),
    ),
    "hopper": (Cell("random", 10_000, "episodes", "both", "medium"),),
    "halfcheetah": (
        Cell("medium", 10_000, "episodes", "both", "medium"),
        Cell("medium", 10_000, "episodes", "both", "expert"),
    ),
}
"""Walker2d's first two cells are those in which it was found that the near source alone is worth more."""
LEFT_OUT = ", what replays far left out"


def replayed(robot: str) -> dict[str, Any]:
    """The policies that `v2a choose` chooses from, of the whole source and without the dynamics that replay far.

    Left out is what is more than three times as far as the nearest after twenty of the target's recorded actions. That
    is both far ones in these cells (`v2a data replay`): 3.3 times at least. In 100,000 transitions of Ant, random or
    medium, it is nothing: 1.5 to 2.2 times.
    """
    cells = {}
    for cell in REPLAYED[robot]:
        cells[cell.label] = layer(cell, robot, source_domains(cell, robot))
        cells[f"{cell.label}{LEFT_OUT}"] = layer(cell, robot, [NEAR[robot]])
    return {"name": f"choice_replayed_{robot}", "settings": SETTINGS, "axes": {"cell": cells, **_axes(CANDIDATES)}}


def published_differences() -> list[dict[str, Any]]:
    """What the differences to the published setting that are left do, on Hopper's cells.

    Data that others recorded instead of our policies'; ten times the update steps of z and A, for the methods that have
    them; and ten times those of the policy, as DVDF and OTDF have a hundred times.
    """
    suite = published("hopper")
    scaled = {label: suite["axes"]["cell"][label] for label in ("medium-replay, scaled", "medium, scaled")}
    recorded = real()["axes"]["cell"]["hopper medium, from three shifted robots"]
    target = recorded["target"] | {"num_transitions": 20_000, "subsample": "transitions", "replacement": True}
    sources = [source for source in recorded["sources"] if source["behavior"] == "medium"]

    def part(suffix: str, cells: Mapping[str, Any], methods: Sequence[str], **settings: Any) -> dict[str, Any]:
        axes = _axes({method: PUBLISHED_METHODS[method] for method in methods}, REAL_SEEDS)
        name, settings = f"published_hopper_{suffix}", PUBLISHED_SETTINGS | settings
        return {"name": name, "settings": settings, "axes": {"cell": dict(cells), **axes}}

    longer = {"modality": SETTINGS["modality"] | {"num_steps": 10_000}, "advantage": {"num_steps": 100_000}}
    with_advantage = ("dvdf", "v2a", "v2a without z", "v2a_supported")
    return [
        part("recorded", {"medium, recorded": {"target": target, "sources": sources}}, list(PUBLISHED_METHODS)),
        part("longer_columns", {"medium, scaled": scaled["medium, scaled"]}, with_advantage, **longer),
        part("longer_policies", scaled, list(PUBLISHED_METHODS), policy={"num_steps": 100_000}),
    ]


def _axes(methods: Sequence[str] | Mapping[str, Any], seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    drawn = {str(seed): {"seed": seed, "target": {"seed": seed}} for seed in seeds}
    return {"method": dict(methods) if isinstance(methods, Mapping) else list(methods), "seed": drawn}


SETTINGS: dict[str, Any] = {
    "modality": {"num_steps": 1000, "learning_rate": 1.0e-3},
    "advantage": {"num_steps": 3000},
    "alignment": {"num_steps": 3000},
    "density": {"num_steps": 3000},
    "policy": {"num_steps": 5000},
    "evaluation": {"num_episodes": 20, "interval_steps": 0},
}
"""Of all cells. 5,000 update steps of the policy are half of the published 10,000, so that the map has twice the cells;
those of the other stages are what separates the domains of the demo at least (README)."""


PUBLISHED_SETTINGS = SETTINGS | {
    "advantage": {"num_steps": 10_000},
    "alignment": {"num_steps": 7_000},
    "policy": {"num_steps": 10_000},
}


def pools() -> list[str]:
    """The commands that make the data which targets are drawn from."""

    def command(robot: str, quality: str, number: int, suffix: str) -> str:
        drawn = f"--domain {robot}/stock --behavior {quality} --num-transitions {number}"
        return f"v2a data collect {drawn} --output $DATA/{robot}_{quality}{suffix}"

    maps = [command(robot, quality, POOL_TRANSITIONS, "") for robot in NEAR for quality in QUALITIES]
    suite = [command(robot, quality, PUBLISHED_POOL, "_million") for robot in NEAR for quality in PUBLISHED_QUALITIES]
    return [*maps, *suite]


def write(content: dict[str, Any], part: str) -> None:
    """Write a sweep to its file."""
    axes = content["axes"]
    trials = math.prod(len(values) for values in axes.values())
    sizes = " × ".join(f"{len(values)} {axis}s" for axis, values in axes.items())
    head = (
        f"# Part {part} of the study; written by `python -m benchmarks.study.design`, which says why these cells.\n"
        f"#   v2a sweep tune_configs/study/{content['name']}.yaml data_root=DIR\n"
        f"# {sizes} = {trials} trials.\n"
    )
    text = yaml.safe_dump(content, sort_keys=False, width=120)
    (FOLDER / f"{content['name']}.yaml").write_text(head + text)
    print(f"{content['name']}: {trials} trials")


def main() -> None:
    """Write the sweeps and print the cells."""
    FOLDER.mkdir(exist_ok=True)
    for robot in NEAR:
        cells = design() if robot in ("hopper", "walker2d") else corners()
        baselines = sweep(robot, cells, "baselines", BASELINE_METHODS)
        near_source = ceiling(robot, cells, "near_source", "iql_source")
        for content in (sweep(robot, cells), baselines, ceiling(robot, cells), near_source, far_alone(robot, cells)):
            if content["axes"]["cell"]:
                write(content, "A")
        write(parts(robot, cells) if robot == "hopper" else sweep(robot, cells, "default", ("v2a_supported",)), "D")
        write(transported(robot, cells), "D")
        if robot != "hopper":
            write(supported(sweep(robot, cells)), "D")
        for cell in cells:
            print(f"  {cell.label}")
    for robot in NEAR:
        write(published(robot), "C")
    for robot in ("hopper", "walker2d"):
        write(supported(published(robot)), "D")
    for content in published_differences():
        write(content, "C")
    for content in (published_choice("hopper"), published_choice("walker2d"), *map(replayed, REPLAYED)):
        write(content, "D")
    write(transported_task(), "D")
    for content in (real(), real_alone()):
        write(content, "E")
    print("\n".join(pools()))


if __name__ == "__main__":
    main()
