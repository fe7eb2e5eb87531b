"""Parts A, B, C and E of the study: which cells are run, chosen before any of them was.

Part A, the map of help. A cell is a target (quality, size, how it was drawn) and a source (dynamics, behaviour). All
combinations are 288 per robot; those that are run are the ones from which the effects of all factors, and how quality
and size of the target change what the dynamics of the source are worth, are estimated best: a D-optimal design of
`NUM_CELLS`, found by exchanging cells until nothing improves. HalfCheetah and Ant have the corners alone.

Every cell has the same target rows, learner, steps and evaluation seeds for each method. A seed draws its own target,
trains its own columns and its own policy, so a spread over seeds is that of everything.

Part B, policies. The mixes of the screen (`where_z_matters`) in which z brings A nearer to the oracles
after 20,000 steps, for which the advantages here are trained too. The target's robot is the rarer dynamics.

Part C, the published suite in the published setting. The target is a tenth of a pool of a million transitions, drawn
row by row with replacement; the source is of the same quality and three dynamics, 300,000 transitions. Rewards and
states are scaled as ours are, and raw as published code has them.

Part E, data of others. Both directions, shifted sources with the stock robot as target and the reverse, and a target of
random actions, on OTDF's and our third-party files of Hopper and HalfCheetah.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.study.cells import FAR, NEAR, Cell, layer, source_domains
from benchmarks.study.where_z_matters import COMMON, MIXES, NOISE_STD, NUM_TRANSITIONS, RARE, Dynamics

FOLDER = Path(__file__).parents[2] / "tune_configs" / "study"
SEEDS = (0, 1, 2)
REAL_SEEDS = (0, 1, 2, 3, 4)
METHODS = ("iql_target", "iql_mixed", "v2a", "v2a_residual", "v2a_supported")
BASELINE_METHODS = ("iql_target", "iql_mixed", "iql_source")
"""What trains without columns, so that it is known of a robot long before its map is."""
POOL_TRANSITIONS = 100_000


Methods = Sequence[str] | Mapping[str, Any]
"""Of a sweep: names of methods, or settings by the name that a row shows."""


def sweep(robot: str, cells: Sequence[Cell], part: str = "map", methods: Methods = METHODS) -> dict[str, Any]:
    """The sweep over methods in a robot's cells: all of the map, or a part of it that has a file of its own."""
    labelled = {cell.label: layer(cell, robot, source_domains(cell, robot)) for cell in cells}
    return {"name": f"{part}_{robot}", "settings": SETTINGS, "axes": {"cell": labelled, **axes_of(methods)}}


def ceiling(robot: str, cells: Sequence[Cell], suffix: str = "ceiling", method: str = "iql_mixed") -> dict[str, Any]:
    """IQL on the mix of what an oracle would choose of a source: the near dynamics alone, where there are others."""
    labelled = {cell.label: layer(cell, robot, [NEAR[robot]]) for cell in cells if cell.dynamics == "both"}
    return {"name": f"map_{robot}_{suffix}", "settings": SETTINGS, "axes": {"cell": labelled, **axes_of([method])}}


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
    return {
        "name": f"map_{robot}_far_alone",
        "settings": SETTINGS,
        "axes": {"cell": labelled, **axes_of(["iql_mixed"])},
    }


Z_MIXES = (
    "hopper, actions 4 steps late",
    "halfcheetah, legs exchanged",
    "halfcheetah, actions 4 steps late",
    "hopper, one motor reversed",
    "halfcheetah, all motors reversed",
)
NO_Z: dict[str, Any] = {"advantage": {"conditioning": "none"}}
VALUE_ALONE: dict[str, Any] = {"policy": {"filter": {"alignment_weight": 0.0}}}
Z_METHODS: dict[str, dict[str, Any]] = {
    "iql_target": {"method": "iql_target"},
    "iql_mixed": {"method": "iql_mixed"},
    "v2a": {"method": "v2a"},
    "v2a without z": {"method": "v2a", **NO_Z},
    "value alone": {"method": "v2a", **VALUE_ALONE},
    "value alone without z": {"method": "v2a", **NO_Z, **VALUE_ALONE},
    "v2a_supported": {"method": "v2a_supported"},
}


def where_z_policies() -> dict[str, Any]:
    """The sweep over policies in mixes of the screen where z mends A; see `where_z_pays.yaml` for the largest."""

    def source(label: str, dynamics: Dynamics, behavior: str, seed: int) -> dict[str, Any]:
        stock = f"{dynamics.domain.split('/')[0]}/stock"
        drawn = {"domain": dynamics.domain, "policy_domain": stock, "behavior": behavior, "seed": seed}
        spec: dict[str, Any] = {"name": f"{label} {behavior}", **drawn, "num_transitions": NUM_TRANSITIONS[label] // 2}
        spec |= {} if behavior == "random" else {"noise_std": NOISE_STD}
        return spec | ({"action_map": [list(row) for row in dynamics.wiring]} if dynamics.wiring else {})

    cells = {}
    for name in Z_MIXES:
        own, other = MIXES[name]
        target = {"domain": own.domain, "behavior": "medium", "num_transitions": NUM_TRANSITIONS[RARE] // 2}
        pairs = itertools.product(((RARE, own, 1), (COMMON, other, 2)), ("random", "medium"))
        cells[name] = {
            "target": target,
            "sources": [source(label, dynamics, behavior, seed) for (label, dynamics, seed), behavior in pairs],
        }
    settings = SETTINGS | {"advantage": {"num_steps": 20_000}}
    return {"name": "where_z_policies", "settings": settings, "axes": {"cell": cells, **axes_of(Z_METHODS)}}


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
    "v2a without z": {"method": "v2a", **NO_Z},
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
    axes = axes_of(PUBLISHED_METHODS, REAL_SEEDS)
    return {"name": f"published_{robot}", "settings": PUBLISHED_SETTINGS, "axes": {"cell": cells, **axes}}


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
        axes = axes_of({method: PUBLISHED_METHODS[method] for method in methods}, REAL_SEEDS)
        name, settings = f"published_hopper_{suffix}", PUBLISHED_SETTINGS | settings
        return {"name": name, "settings": settings, "axes": {"cell": dict(cells), **axes}}

    longer = {"modality": SETTINGS["modality"] | {"num_steps": 10_000}, "advantage": {"num_steps": 100_000}}
    with_advantage = ("dvdf", "v2a", "v2a without z", "v2a_supported")
    return [
        part("recorded", {"medium, recorded": {"target": target, "sources": sources}}, list(PUBLISHED_METHODS)),
        part("longer_columns", {"medium, scaled": scaled["medium, scaled"]}, with_advantage, **longer),
        part("longer_policies", scaled, list(PUBLISHED_METHODS), policy={"num_steps": 100_000}),
    ]


def axes_of(methods: Methods, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """The axes `method` and `seed` of a sweep; a seed draws a target of its own."""
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
