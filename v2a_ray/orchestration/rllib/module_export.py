"""Exports a trained policy as RLlib's `RLModule` (new API stack); `ray.init` is not needed.

Ray pickles the constructor's arguments (a class, two gymnasium spaces and a dictionary), and restoring unpickles them:
load only checkpoints whose origin you trust. `v2a evaluate` unpickles nothing; it reads the parameters beside them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.core.rl_module.torch import TorchRLModule

from v2a_ray.domains.rollout import Act
from v2a_ray.export.formats import quiet, require_equal, write_about
from v2a_ray.export.policies import TrainedPolicy
from v2a_ray.networks import TanhActor
from v2a_ray.outputs import new_folder, require_our_folder


class TanhActorModule(TorchRLModule):  # Ray is untyped
    """Deterministic actions in [-1, 1] for raw observations, in training, exploration and inference alike.

    `model_config` holds `hidden`: the widths of the layers.
    """

    def setup(self) -> None:
        """Called by RLlib."""
        observation, action = self.observation_space.shape[0], self.action_space.shape[0]
        self.actor = TanhActor(observation, action, self.model_config["hidden"])

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTIONS: self.actor.act(batch[Columns.OBS])}


def make_module(policy: TrainedPolicy) -> TanhActorModule:
    """The policy's network as an RLModule."""
    weights = [value for name, value in policy.actor.body.state_dict().items() if name.endswith("weight")]
    observation, action = weights[0].shape[1], len(weights[-1])
    module = TanhActorModule(
        observation_space=Box(-np.inf, np.inf, (observation,), np.float32),
        action_space=Box(-1.0, 1.0, (action,), np.float32),
        model_config={"hidden": [len(weight) for weight in weights[:-1]]},
        inference_only=True,
    )
    module.actor.load_state_dict(policy.actor.state_dict())
    return module


def export_rllib(policy: TrainedPolicy, output: Path) -> float:
    """Write the checkpoint folder atomically; it may replace only a folder that we wrote.

    `RLModule.from_checkpoint(output)` loads it on any machine with v2a_ray. Returns the largest difference of an action
    to the original policy's on 1,000 observations. Raises StorageError as `export_file` does.
    """
    require_our_folder(output)
    with new_folder(output) as partial:
        with quiet():
            make_module(policy).save_to_path(partial.resolve())
        write_about(policy, partial)
        return require_equal(policy.actor, module_act(partial), output)


def module_act(folder: Path) -> Act:
    """The policy that RLlib loads from a checkpoint folder. It unpickles: use it only for folders just written here."""
    with quiet():
        module = RLModule.from_checkpoint(folder.resolve())

    def act(observation_BO: NDArray[Any]) -> NDArray[np.float32]:
        batch = {Columns.OBS: torch.from_numpy(np.asarray(observation_BO, dtype=np.float32))}
        action_BA: NDArray[np.float32] = module.forward_inference(batch)[Columns.ACTIONS].numpy()
        return action_BA

    return act
