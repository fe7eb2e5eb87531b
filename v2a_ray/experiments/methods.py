"""Methods as combinations of source columns and a filter.

A method is a set of settings below the user's, so every choice can be changed by its key, and one line describes the
method. Sources: V2A 2605.24862, DVDF 2512.02435, IGDF 2405.06192, IQL 2110.06169,
TD3+BC 2106.06860, AWAC 2006.09359, DARA 2203.06662, BOSA 2306.12755, OTDF (ICLR 2025), STC 2602.05776,
DROCO 2512.02486, SRPO 2306.03552, grouped updates 2602.18025, ReBRAC 2305.09836, FQL 2502.02538, CQL 2006.04779,
DmC 2507.20499, RB-CQL 2307.02752.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from v2a_ray.errors import ConfigError
from v2a_ray.experiments.deviations import (
    DENSITY,
    DVDF_STEPS,
    DVDF_WEIGHT,
    HELD_OUT,
    LEARNERS_ALONE,
    MILLION,
    SCALED,
    SMALL_MODALITY,
    TRANSPORT,
    V2A_POLICY,
)
from v2a_ray.settings.base import leaves
from v2a_ray.settings.choices import nearest


@dataclass(frozen=True)
class Method:
    """A named combination.

    Attributes:
        summary: one line for `v2a methods`.
        settings: settings that replace defaults, as nested sections.
        source: the publication, or for our methods their basis.
        deviations: differences from the source, each with the key that undoes it if there is one.
        published: whether the source describes this combination; otherwise it is ours.
        origin: author of a method that is not part of the package.
    """

    summary: str
    settings: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    deviations: tuple[str, ...] = ()
    published: bool = True
    origin: str = ""

    @cached_property
    def keys(self) -> frozenset[str]:
        """Dotted keys of its settings."""
        return frozenset(leaves(self.settings))


DEFAULT_METHOD = "v2a_supported"
"""The method that README recommends to begin with."""


def _plain(learner: str, data: str, where: str) -> Method:
    """A learner alone, without any column."""
    title, source, deviations = LEARNERS_ALONE[learner]
    return Method(f"{title} on {where}", _learner(learner, data), source, deviations)


def _learner(learner: str, data: str, **more: Any) -> dict[str, Any]:
    return {"policy": {"learner": learner, "data": data, **more}}


def _filtered(**rule: Any) -> dict[str, Any]:
    return {"learner": "iql", "data": "mixed", "filter": rule}


def _best(keep_fraction: float, alignment_weight: float, weight: str = "one", **rule: Any) -> dict[str, Any]:
    """IQL on the best part of every batch."""
    return _filtered(
        rule="top_fraction", keep_fraction=keep_fraction, alignment_weight=alignment_weight, weight=weight, **rule
    )


def _calibrated(**policy: Any) -> dict[str, Any]:
    """V2A with a calibrated filter: it keeps only transitions above a threshold from held-out target data."""
    rule = _filtered(rule="calibrated", keep_fraction=0.5, alignment_weight=0.0, weight="one")
    return {
        "modality": {"include_target": True},
        "advantage": {"kind": "sparse_q", "conditioning": "modality"},
        "alignment": {"kind": "modality", "window_steps": 50},
        "policy": rule | policy,
    }


METHODS: dict[str, Method] = {
    "v2a": Method(
        "modality z, A(s, a, z), contrastive h; best half by 0.6 h + 0.4 minmax(A), weight exp(h)",
        {
            "advantage": {"kind": "sparse_q", "conditioning": "modality"},
            "alignment": {"kind": "contrastive"},
            "policy": _best(0.5, 0.6, "exp_alignment"),
        },
        "V2A, 2605.24862, with IGDF's alignment",
        (
            SCALED,
            SMALL_MODALITY,
            V2A_POLICY,
            HELD_OUT,
            "encoder inputs are standardised (raw: modality.standardize=false)",
        ),
    ),
    "v2a_residual": Method(
        "V2A with residual alignment (ours): best two fifths by 0.6 h + 0.4 minmax(A), weight exp(h)",
        {
            "advantage": {"kind": "sparse_q", "conditioning": "modality"},
            "alignment": {"kind": "residual", "window_steps": 50},
            "policy": _best(0.4, 0.6, "exp_alignment"),
        },
        "V2A, 2605.24862",
        (SCALED, SMALL_MODALITY, V2A_POLICY, HELD_OUT, "alignment and the kept fraction are ours"),
        published=False,
    ),
    "v2a_calibrated": Method(
        "V2A with modality alignment and a calibrated filter (ours): the best half by f of the eligible transitions",
        _calibrated(),
        "V2A, 2605.24862",
        (SCALED, SMALL_MODALITY, "alignment, filter rule and weight are ours"),
        published=False,
    ),
    "v2a_supported": Method(
        "v2a_calibrated with an actor in the support of the target's behaviour (ours); begin with this one",
        _calibrated(density_weight=0.1) | {"density": {"fit_to": "target"}},
        "V2A, 2605.24862, with OTDF's actor",
        (SCALED, SMALL_MODALITY, DENSITY, "alignment, filter rule and weight are ours"),
        published=False,
    ),
    "dvdf": Method(
        "global A(s, a), contrastive h; best half by 0.7 h + 0.3 minmax(A), weight exp(h)",
        {
            "advantage": {"kind": "sparse_q", "conditioning": "none"},
            "alignment": {"kind": "contrastive"},
            "policy": _best(0.5, 0.7, "exp_alignment"),
        },
        "DVDF, 2512.02435, with IGDF's alignment",
        (SCALED, HELD_OUT, DVDF_STEPS, DVDF_WEIGHT),
    ),
    "v2a_ot": Method(
        "modality z, A(s, a, z), optimal-transport h; best half by 0.6 minmax(h) + 0.4 minmax(A), weight exp(h)",
        {
            "advantage": {"kind": "sparse_q", "conditioning": "modality"},
            "alignment": {"kind": "optimal_transport"},
            "policy": _best(0.5, 0.6, "exp_alignment", normalize_alignment=True),
        },
        "V2A, 2605.24862, with OTDF's alignment",
        (SCALED, SMALL_MODALITY, V2A_POLICY, HELD_OUT, TRANSPORT),
    ),
    "dvdf_ot": Method(
        "global A(s, a), optimal-transport h; best half by 0.7 minmax(h) + 0.3 minmax(A), weight exp(h)",
        {
            "advantage": {"kind": "sparse_q", "conditioning": "none"},
            "alignment": {"kind": "optimal_transport"},
            "policy": _best(0.5, 0.7, "exp_alignment", normalize_alignment=True),
        },
        "DVDF, 2512.02435, with OTDF's alignment",
        (SCALED, HELD_OUT, TRANSPORT, DVDF_STEPS, DVDF_WEIGHT),
    ),
    "igdf": Method(
        "contrastive h; best three quarters by h, weight exp(h)",
        {
            "alignment": {"kind": "contrastive"},
            "policy": _best(0.75, 1.0, "exp_alignment"),
        },
        "IGDF, 2405.06192",
        (SCALED, MILLION, HELD_OUT),
    ),
    "otdf": Method(
        "optimal-transport h; best quarter by h, weight exp(minmax(h) - 1); actor in the target behaviour's support",
        {
            "alignment": {"kind": "optimal_transport"},
            "density": {"fit_to": "target"},
            "policy": _best(0.25, 1.0, "exp_score", normalize_alignment=True) | {"density_weight": 0.1},
        },
        "OTDF, ICLR 2025",
        (
            SCALED,
            HELD_OUT,
            TRANSPORT,
            DENSITY,
            "published weights of the density in the actor's loss are tuned per task, 0.1 to 0.5; 0.5 in its "
            "configuration files (policy.density_weight)",
            "the published density has a fixed standard deviation; ours learns one per action",
            "a quarter of the source is kept, as in its configuration files; its README uses 0.8 "
            "(policy.filter.keep_fraction=0.8)",
            MILLION,
        ),
    ),
    "bosa": Method(
        "TD3; TD where all target dynamics models give s' a density above 0.01; actor in the mix behaviour's support",
        {
            "alignment": {"kind": "dynamics_density", "fit_dynamics_to": "target"},
            "density": {"fit_to": "mixed"},
            "policy": {
                "learner": "bosa",
                "data": "mixed",
                "density_weight": 0.1,
                "filter": {"rule": "none", "weight": "above_threshold"},
            },
        },
        "BOSA, 2306.12755",
        (
            SCALED,
            HELD_OUT,
            DENSITY,
            "dynamics models take 7,000 steps at width 256; published: 100,000 at 750 (alignment.num_steps, .width)",
            "the support mask applies to source rows only, and the TD loss is a sum of squares; published code also "
            "masks target rows and halves the loss",
            MILLION,
            "p(s' | s, a) and its threshold (policy.filter.weight_threshold) are densities of s' - s in units of its "
            "standard deviations in the target",
        ),
    ),
    "stc": Method(
        "source actions and rewards replaced by predictions for the target, where models of its dynamics confirm them",
        _learner("iql", "mixed", correct_transitions=True),
        "STC, 2602.05776",
        (
            SCALED,
            "the published description gives the three models and their purposes; the rest of this list is our choice",
            "the learner is IQL without a filter (policy.learner, policy.filter)",
            "a source transition with a refused correction is used as recorded",
            "s' fits better if the mean prediction of five dynamics models is nearer to it, over features in units of "
            "their standard deviations in the target (dynamics.num_members)",
            "all models are deterministic and take 10,000 steps at width 256 (dynamics, correction)",
        ),
    ),
    "droco": Method(
        "IQL with a worst-case backup on source rows, over s' and the next states predicted for the target",
        _learner("droco", "mixed"),
        "after DROCO, 2512.02486",
        (
            SCALED,
            "the operator is as described: robust on source rows, in-sample on target rows; the rest is our choice",
            "the perturbed next states are s' and the predictions of five models of the target's dynamics "
            "(dynamics.num_members)",
            "the value penalty is the difference of V(s') and the smallest of these states' values, with weight 1 "
            "(policy.penalty_weight)",
            "only source rows have the Huber loss, with threshold 1 (policy.huber_threshold)",
            "the actor is IQL's on both tables",
        ),
        published=False,
    ),
    "srpo": Method(
        "IQL with rewards r + 0.1 log ratio of s among states of high value to the others, on both tables",
        {
            "alignment": {"kind": "state_ratio"},
            "policy": {
                "learner": "iql",
                "data": "mixed",
                "reward_correction": 0.1,
                "reward_correction_data": "mixed",
            },
        },
        "after SRPO, 2306.03552",
        (
            SCALED,
            HELD_OUT,
            "the discriminator and its term in the reward are as described; the rest is our choice",
            "the learner is IQL (published: an addition to context encoders, CaDM and MAPLE, which infer the dynamics)",
            "values come from IQL on half source and half target; the better half of a batch is of high value "
            "(alignment.high_value_fraction)",
            "the discriminator's inputs get noise and its logit is clipped, as in DARA (alignment.noise_std, "
            ".log_ratio_clip)",
            "the weight 0.1 is in units of the recorded reward; the sum is scaled (policy.reward_correction)",
        ),
        published=False,
    ),
    "dara": Method(
        "classifier Δr; source rewards become r + 0.1 Δr",
        {
            "alignment": {"kind": "classifier"},
            "policy": {"learner": "iql", "data": "mixed", "reward_correction": 0.1},
        },
        "DARA, 2203.06662",
        (
            SCALED,
            HELD_OUT,
            "the learner is IQL (published: BEAR, CQL, BCQ, AWR, MOPO)",
            "0.1 Δr is in units of the recorded reward; the sum is scaled",
            "both classifiers are trained before the policy and then fixed; ODRL's code pretrains them and continues "
            "together with the policy",
            MILLION,
        ),
    ),
    "dara_filter": Method(
        "classifier Δr; best quarter by Δr (ours)",
        {
            "alignment": {"kind": "classifier"},
            "policy": _best(0.25, 1.0),
        },
        "Δr of DARA, 2203.06662",
        (SCALED, HELD_OUT, "Δr filters instead of correcting the reward"),
        published=False,
    ),
    "dmc_nearest": Method(
        "nearest-neighbour log ratio h; best quarter by h, weight exp(minmax(h) - 1)",
        {
            "alignment": {"kind": "nearest"},
            "policy": _best(0.25, 1.0, "exp_score", normalize_alignment=True),
        },
        "after DmC, 2507.20499",
        (
            SCALED,
            HELD_OUT,
            "the published description gives domain proximity by k-NN estimation without training; the ratio of k-th "
            "distances, k, the compared features and their units are our choice (alignment.num_neighbors)",
            "there is no diffusion model that generates source samples",
            "neighbours are searched among at most 20,000 transitions of a table (alignment.max_source_transitions, "
            ".max_target_transitions)",
            "the filter's selection and weights are OTDF's (policy.filter)",
        ),
        published=False,
    ),
    "rb_cql": Method(
        "CQL on the mix; the half of each source batch with states nearest to the target's",
        {
            "alignment": {"kind": "nearest_states"},
            "policy": _best(0.5, 1.0) | {"learner": "cql"},
        },
        "after 2307.02752",
        (
            SCALED,
            HELD_OUT,
            "the published description gives CQL and the retrieval of related experiences; the rest is our choice",
            "source transitions are retrieved for target states, by the distance of standardised states to the k-th "
            "nearest (alignment.num_neighbors, policy.filter.keep_fraction; published: within one imbalanced dataset)",
            "retrieved transitions count like all others, in the TD loss and in the conservative term",
            "the learner is our CQL, with the deviations of `cql` (v2a methods cql)",
        ),
        published=False,
    ),
    "grouped": Method(
        "IQL on the mix, with one actor update per cluster of z and one for the target",
        _learner("grouped", "mixed"),
        "after 2602.18025",
        (
            SCALED,
            SMALL_MODALITY,
            "groups are clusters of z; published: clusters of robots by the distance of their morphologies",
            "order, weight and learning rate of the groups are our choice (v2a_ray.stages.policy.grouped)",
        ),
        published=False,
    ),
    **{
        learner: _plain(learner, "mixed", "`policy.data`: mixed, target or source, unfiltered")
        for learner in LEARNERS_ALONE
    },
    **{
        f"rllib_{name}": Method(
            f"RLlib's {name.upper()} on `policy.data`, a baseline", _learner(f"rllib_{name}", "mixed"), "Ray RLlib"
        )
        for name in ("bc", "marwil", "cql", "iql")
    },
    **{
        f"{learner}_{data}": _plain(learner, data, where)
        for learner in LEARNERS_ALONE
        for data, where in (
            ("target", "the target dataset alone"),
            ("source", "the source mix alone"),
            ("mixed", "source and target, half and half, unfiltered"),
        )
    },
}


def register_method(name: str, method: Method) -> Method:
    """Register a method under a name. Raises ValueError if the package has a method of that name."""
    if name in METHODS and METHODS[name].origin == "":
        raise ValueError(f"method {name!r} is there already")
    METHODS[name] = replace(method, origin=method.origin or "a plugin")
    return METHODS[name]


def method_settings(name: str) -> dict[str, Any]:
    """The settings of a method. Raises ConfigError, naming all methods, for an unknown name."""
    if name in METHODS:
        return METHODS[name].settings
    raise ConfigError(
        f"unknown method {name!r}",
        where="method",
        remedy=f"{nearest(name, list(METHODS))} (`v2a methods` describes them)",
    )
