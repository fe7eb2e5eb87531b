"""The benchmark of the modality stage's forms: its scores by hand, and its table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.modality_quality import FORMS, REFERENCE, roll_out, step_costs, unseen_behavior_accuracy
from v2a_ray.data.mixing.mixture import CollectionRequest


def test_probe_of_the_behaviour_fails_on_an_unseen_behaviour() -> None:
    domain = np.asarray(["a", "b"] * 20)
    behavior = np.asarray(["medium"] * 20 + ["expert"] * 20)
    noise = 0.01 * np.random.default_rng(0).normal(size=(40, 2))
    of_dynamics = noise + (domain == "a")[:, None]
    assert unseen_behavior_accuracy(of_dynamics.astype(np.float32), domain, behavior) == 1.0
    # One direction separates the domains, but with opposite sign for the two behaviours.
    of_both = noise + ((domain == "a") == (behavior == "medium"))[:, None]
    assert unseen_behavior_accuracy(of_both.astype(np.float32), domain, behavior) == 0.0


def test_rollouts_have_the_requested_size_and_forms_take_turns() -> None:
    table = roll_out(CollectionRequest("hopper/gravity-0.5", "hopper/stock", "random", 350, 0, 0.1), episodes_at_once=8)
    assert table.num_transitions == 350 and table.num_episodes > 8
    forms = {name: FORMS[name] for name in ("pooled 64", "gru 64")}
    costs = step_costs(table, forms, rounds=3, num_steps=1)
    assert costs.keys() == {REFERENCE, *forms} and all(
        len(rounds) == 3 and min(rounds) > 0 for rounds in costs.values()
    )


def test_published_form_has_the_published_sizes() -> None:
    config = FORMS["published"].config
    assert (config.encoder, config.encoder_width, config.latent_dim, config.optimization) == ("gru", 256, 128, "em")
    assert (config.num_decoders, config.decoder_width, config.decoder_layers) == (3, 256, 2)
    assert (config.batch_size, config.crop_steps, config.learning_rate) == (16, 200, 3e-4)


@pytest.mark.slow
def test_modality_quality_prints_a_row_per_form() -> None:
    command = [sys.executable, "-m", "benchmarks.modality_quality", "--mixes", "hopper_nine", "--quick"]
    run = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    rows = [line.split(" | ")[0].removeprefix("| ") for line in run.stdout.splitlines() if line.startswith("| ")]
    assert rows == ["form", "---", REFERENCE, *FORMS]
