"""Where methods differ from their sources: what several have in common, and what learners by themselves do."""

from __future__ import annotations

SCALED = (
    "rewards are scaled and states standardised by the target "
    "(raw: preprocessing.reward_scale=1 preprocessing.standardize_observations=false)"
)
SMALL_MODALITY = (
    "z is a mean over separately encoded transitions, from 2,500 joint steps of a smaller model (published: "
    "modality.encoder=gru .encoder_width=256 .decoder_width=256 .crop_steps=200 .latent_dim=128 .optimization=em "
    ".num_steps=100000)"
)
HELD_OUT = "a fifth of the target is kept from the alignment's fit, to audit it (alignment.held_out_fraction)"
TRANSPORT = (
    "h is the mean cost of a transition under its part of the plan, not its share of the total (the same order); "
    "the entropy's weight is ours (alignment.regularization)"
)
DENSITY = (
    "the behaviour's density takes 10,000 steps at width 256 and learns its standard deviations (density.num_steps, "
    ".width; published: width 750)"
)
DVDF_STEPS = (
    "the advantage takes 5,000 steps, with alpha 0.2 and target critics that move every second step (published code: "
    "advantage.num_steps=1000000 .alpha=0.1 .target_interval_steps=1), the policy 20,000 (published: "
    "policy.num_steps=1000000)"
)
DVDF_WEIGHT = (
    "the TD loss is weighed by exp(h), as in published code; the paper's text weighs it by the score, which is "
    "negative where h is (policy.filter.weight=score)"
)
V2A_POLICY = (
    "the policy takes 20,000 steps (published: policy.num_steps=10000), and V(s') is that before V's step of an update "
    "(published code: policy.next_value=after_step)"
)
MILLION = "the policy takes 20,000 steps (published code: policy.num_steps=1000000)"
LEARNERS_ALONE: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "iql": (
        "IQL",
        "2110.06169",
        (SCALED, MILLION, "the actor is the deterministic tanh mean, fitted by squared error"),
    ),
    "bc": ("behaviour cloning", "Pomerleau 1989", (SCALED, "squared error of the tanh mean")),
    "td3_bc": ("TD3+BC", "2106.06860", ("rewards are scaled too (preprocessing.reward_scale=1)", MILLION)),
    "awac": (
        "AWAC",
        "2006.09359",
        (
            SCALED,
            "the policy takes 20,000 steps (ODRL's code: policy.num_steps=1000000)",
            "weights are clamped at 100; published code normalises them per batch",
            "networks have two hidden layers, and the actor's log standard deviation starts at -1; ODRL's code has "
            "three layers and another start",
        ),
    ),
    "rebrac": (
        "ReBRAC",
        "2305.09836",
        (
            SCALED,
            MILLION,
            "both penalties are 0.05 and 0.01 everywhere (policy.actor_penalty, .critic_penalty; published: tuned per "
            "dataset), and the critics' counts in units of scaled rewards",
            "networks have two hidden layers and batches are as for all learners here; published: three, and 1,024 for "
            "locomotion (policy.batch_size)",
            "the critics' penalty is left out at the end of a truncated episode, whose next action is not recorded",
            "where transitions are corrected (policy.correct_transitions) the next action is the recorded one",
        ),
    ),
    "fql": (
        "FQL",
        "2502.02538",
        (
            SCALED,
            MILLION,
            "what is evaluated and exported is the one-step policy at zero noise, a deterministic actor; published: it "
            "acts with new noise in every step; zero noise is between the modes of a symmetric mixture",
            "its output is a tanh, not clipped",
            "Q is divided by mean|Q| in the policy's loss, and its weight there is 1 everywhere (policy.q_weight; "
            "published: tuned per task)",
            "Q is the smaller of two critics (published: for most tasks their mean)",
            "networks have two hidden layers of 256 with ReLU; published: four of 512 with GELU",
        ),
    ),
    "cql": (
        "CQL",
        "2006.04779",
        (
            SCALED,
            MILLION,
            "the policy's standard deviations do not depend on the state; what is evaluated is its tanh mean",
            "the soft maximum is estimated by 4 even and 4 policy actions (published: policy.num_samples=10), with the "
            "fixed weight 5 (policy.conservatism)",
            "all learning rates are equal (published: the policy's is smaller)",
        ),
    ),
}
"""Learners that are methods by themselves: title, source, deviations."""
