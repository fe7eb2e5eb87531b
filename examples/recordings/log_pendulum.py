"""A log as a lab writes it: a CSV of a double pendulum's runs, by gymnasium alone. `python log_pendulum.py log.csv`"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import gymnasium
import numpy as np
from my_policies import balance

NUM_RUNS, LONGEST, NOISE = 20, 100, 0.3


def main() -> None:
    """Twenty runs of at most 100 steps; the balancing action gets noise, so that some runs fall."""
    environment = gymnasium.make("InvertedDoublePendulum-v5", max_episode_steps=LONGEST)
    generator = np.random.default_rng(0)
    with Path(sys.argv[1]).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", *(f"q{index}" for index in range(9)), "force", "reward", "fell"])
        for run in range(NUM_RUNS):
            observation, _ = environment.reset(seed=run)
            terminated = truncated = False
            while not (terminated or truncated):
                action = np.clip(balance(observation) + generator.normal(0.0, NOISE, 1), -1.0, 1.0)
                following, reward, terminated, truncated, _ = environment.step(action)
                writer.writerow([run, *observation, *action, reward, terminated])
                observation = following


if __name__ == "__main__":
    main()
