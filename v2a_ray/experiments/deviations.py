"""Deviations of methods from their sources: those shared by several methods, and those of learners alone."""

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
HELD_OUT = "a fifth of the target is held out of the alignment's fit, to audit it (alignment.held_out_fraction)"
TRANSPORT = (
    "h is minus the mean cost of a transition under its row of the plan, not its share of the total (the same order); "
    "the entropy's weight is our choice (alignment.regularization)"
)
DENSITY = (
    "the behaviour's density takes 10,000 steps at width 256 and learns its standard deviations (density.num_steps, "
    ".width; published: width 750)"
)
DVDF_STEPS = (
    "the advantage takes 5,000 steps, with alpha 0.2 and target critics updated every second step (published code: "
    "advantage.num_steps=1000000 .alpha=0.1 .target_interval_steps=1), the policy 20,000 (published: "
    "policy.num_steps=1000000)"
)
DVDF_WEIGHT = (
    "the TD loss is weighted by exp(h), as in published code; the paper's text weights it by the score, which can be "
    "negative (policy.filter.weight=score)"
)
V2A_POLICY = (
    "the policy takes 20,000 steps (published: policy.num_steps=10000), and the critics use V(s') before V's update in "
    "a step (published code: policy.next_value=after_step)"
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
            "three layers and another initial value",
        ),
    ),
    "rebrac": (
        "ReBRAC",
        "2305.09836",
        (
            SCALED,
            MILLION,
            "the penalties are 0.05 and 0.01 everywhere (policy.actor_penalty, .critic_penalty; published: tuned per "
            "dataset), and the critics' penalty is in units of scaled rewards",
            "networks have two hidden layers and the batch size of all learners here; published: three, and 1,024 for "
            "locomotion (policy.batch_size)",
            "the critics' penalty is left out at the end of a truncated episode, whose next action is not recorded",
            "with corrected transitions (policy.correct_transitions), the next action is the recorded one",
        ),
    ),
    "fql": (
        "FQL",
        "2502.02538",
        (
            SCALED,
            MILLION,
            "the one-step policy is evaluated and exported at zero noise, as a deterministic actor; published: new "
            "noise in every step; zero noise is between the modes of a symmetric mixture",
            "its output is a tanh instead of being clipped",
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
            "the policy's standard deviations do not depend on the state; its tanh mean is evaluated",
            "the soft maximum is estimated from 4 uniform and 4 policy actions (published: policy.num_samples=10), and "
            "has the fixed weight 5 (policy.conservatism)",
            "all learning rates are equal (published: the policy's is smaller)",
        ),
    ),
}
"""Learners that are methods on their own: title, source, deviations."""
