"""RLlib's own offline learners (BC, MARWIL, CQL, IQL) on our tables, as baselines for our learners.

RLlib provides the episodes (format `rllib`), the learner connector that turns them into training columns, the RLModule,
and the losses, optimisers and target updates of its `Learner`. We provide preprocessing, the draws of batches (uniform,
with replacement), the number of update steps, evaluation and artifacts, so that nothing else differs from our learners.

We draw the batches because RLlib 2.60 repeats its draws on one local learner: each map task samples from a buffer of
ten batches and the mapped batches are materialised, so every epoch repeats the first. We call `Learner.update` once per
update step because RLlib moves target networks once per call, however many batches the call processes. (`IQLConfig`
inherits from MARWIL a refusal of temperatures above 1; a learner that is built directly accepts them.)

On one device and one thread, equal seeds give equal results, and a killed run that continues from its checkpoint
(safetensors) ends like a run that was never killed. Results may differ between versions of Ray.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.cql import CQLConfig
from ray.rllib.algorithms.iql import IQLConfig
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from safetensors.torch import save_file
from torch import Tensor, nn

from v2a_ray.data.formats import rllib
from v2a_ray.data.formats.numpy_msgpack import unpack
from v2a_ray.data.loading.sampler import Preprocessing
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.engine.context import Job, preprocessing, require_memory
from v2a_ray.engine.stage import imported
from v2a_ray.engine.trainer import Metrics, use_threads
from v2a_ray.stages.policy.config import (
    PolicyConfig,
    RLlibBCConfig,
    RLlibCQLConfig,
    RLlibIQLConfig,
    RLlibMARWILConfig,
)
from v2a_ray.stages.policy.evaluating import as_metrics, make_evaluate, recorded_names
from v2a_ray.stages.policy.schedule import cosine, set_learning_rate

Float = NDArray[np.float32]
Columns = dict[str, NDArray[Any]]
"""Training columns by RLlib's names (obs, actions, rewards, new_obs, terminateds, ...), one row per transition."""

MARWIL_BETA = 1.0
"""RLlib's default and largest value. MARWIL divides advantages by their running scale, so our temperature does not
apply."""


def fit_rllib_policy(job: Job) -> None:
    """Train an RLlib baseline and write the policy stage's files: curves, evaluation and `module.safetensors`."""
    config = job.config.policy
    use_threads(config.num_threads)
    roles = ["source", "target"] if config.data == "mixed" else [config.data]
    require_memory(job, "policy", *roles)
    prepared, seed = preprocessing(job), job.config.seed
    tables = {role: prepare(job.table(role), prepared) for role in roles}
    seed_everything(seed)
    first = tables[roles[0]]
    learner = BaselineLearner(config, first.observation_dim, first.action_dim, seed)
    for role, table in tables.items():
        learner.add_table(table, job.work / "episodes" / role)
    # The connectors may draw random numbers; seed again so that training depends on the seed alone.
    seed_everything(seed)
    evaluate, names = make_evaluate(job), recorded_names(job)
    last: dict[str, Any] = {}

    def act(observations: Float) -> Float:
        return learner.act((observations - prepared.observation_mean) / prepared.observation_std)

    def evaluate_module() -> Metrics:
        last.update(evaluate(act))
        return as_metrics(last, names)

    loop = job.loop(
        config,
        samplers={"rllib": learner},
        evaluate=evaluate_module,
        evaluation_interval_steps=job.config.evaluation.interval_steps,
    )
    history = loop.run(learner)
    save_module(learner, prepared, job.output / "module.safetensors")
    last["source_transitions_eligible"] = tables["source"].num_transitions if "source" in tables else 0
    last["streamed_tables"] = []
    (job.output / "evaluation.json").write_text(json.dumps(last, indent=1))
    job.write_history(history)


def prepare(table: EpisodeTable, prepared: Preprocessing) -> EpisodeTable:
    """The table for RLlib: observations standardised and rewards scaled, as for our own learners."""

    def standardize(observation: Float) -> Float:
        return ((observation - prepared.observation_mean) / prepared.observation_std).astype(np.float32)

    return table.replace(
        observation=standardize(table.observation),
        next_observation=standardize(table.next_observation),
        reward=(table.reward * prepared.reward_scale).astype(np.float32),
    )


def read_episodes(folder: Path) -> list[SingleAgentEpisode]:
    """Read the episodes that `rllib.write` wrote as RLlib's objects, without unpickling."""
    states = (unpack(item.as_py()) for file in sorted(folder.glob("*.parquet")) for item in pq.read_table(file)["item"])
    return [SingleAgentEpisode.from_state(state) for state in states]


class BaselineLearner:
    """An RLlib `Learner` for our training loop: one update step at a time, checkpointed as tensors.

    It is its own sampler: `state_dict` saves the state that RLlib keeps outside of networks and optimisers (CQL's
    alpha, MARWIL's advantage scale, the global random generator).
    """

    def __init__(self, config: PolicyConfig, observation_dim: int, action_dim: int, seed: int) -> None:
        self.config = config
        self.generator = torch.Generator().manual_seed(seed)
        self.spaces = (
            Box(-np.inf, np.inf, (observation_dim,), np.float32),
            Box(-1.0, 1.0, (action_dim,), np.float32),
        )
        self.algorithm = algorithm_config(config, seed)
        self.learner: Any = self.algorithm.build_learner(spaces={DEFAULT_MODULE_ID: self.spaces})
        self.module: Any = self.learner.module[DEFAULT_MODULE_ID]
        self.networks: dict[str, nn.Module] = {"module": self.module}
        self.optimizers: dict[str, torch.optim.Optimizer] = dict(self.learner._named_optimizers)
        # The actor's learning rate decays as ours does, except in CQL, whose actor follows its critic.
        follows = isinstance(config, RLlibCQLConfig)
        names = () if follows else ("default_policy_policy", "default_policy_default_optimizer")
        self.decaying = [optimizer for name, optimizer in self.optimizers.items() if name in names]
        self.tables: list[Columns] = []

    def add_table(self, table: EpisodeTable, folder: Path) -> None:
        """Add `table` to the tables to draw from, through RLlib's episodes in `folder` and its learner connector."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        rllib.write(table, folder)
        self.tables.append(self.columns(read_episodes(folder)))

    def columns(self, episodes: list[SingleAgentEpisode]) -> Columns:
        """Training columns that RLlib's learner connector makes from whole episodes.

        MARWIL's value targets are discounted returns (lambda 1), bootstrapped at a truncation with the untrained value
        function: RLlib's own pipeline does not recompute them either.
        """
        connector = self.algorithm.build_learner_connector(*self.spaces)
        batch = connector(rl_module=self.learner.module, batch={}, episodes=episodes, shared_data={}, metrics=None)
        columns = {name: np.asarray(values) for name, values in batch[DEFAULT_MODULE_ID].items()}
        # Drop the steps that the connector appended to compute advantages.
        valid = columns.pop("loss_mask", np.ones(len(columns["obs"]), bool)).astype(bool)
        return {name: values[valid] for name, values in columns.items() if len(values) == len(valid)}

    def update(self, step: int) -> dict[str, Tensor]:
        """One call of RLlib's `Learner.update` on one batch."""
        # Computed from the step before the update: RLlib's own schedules act after it and are not in the checkpoint.
        for optimizer in self.decaying:
            set_learning_rate(optimizer, cosine(self.config.learning_rate, step, self.config.num_steps))
        batch = SampleBatch(self.sample())
        results = self.learner.update(
            batch=MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=len(batch)),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: step + 1},
        )
        metrics = _peek(results[DEFAULT_MODULE_ID])
        return {f"policy/{ours}": torch.tensor(metrics[name]) for name, ours in _METRICS.items() if name in metrics}

    def sample(self) -> Columns:
        """2 B transitions of one table, or B of each of two, uniformly and with replacement."""
        size = 2 * self.config.batch_size // len(self.tables)
        drawn = []
        for table in self.tables:
            rows = torch.randint(len(table["obs"]), (size,), generator=self.generator).numpy()
            drawn.append({name: values[rows] for name, values in table.items()})
        return {name: np.concatenate([part[name] for part in drawn]) for name in drawn[0]}

    @torch.no_grad()
    def act(self, standardized: Float) -> Float:
        """Deterministic action of the RLModule (the mode of its distribution, inside [-1, 1])."""
        inputs = {"obs": torch.from_numpy(standardized.astype(np.float32))}
        logits = self.module.forward_inference(inputs)["action_dist_inputs"]
        mode = self.module.get_inference_action_dist_cls().from_logits(logits).to_deterministic().sample()
        return np.asarray(mode.clamp(-1.0, 1.0).numpy(), np.float32)

    def state_dict(self) -> dict[str, Tensor]:
        """State outside of networks and optimisers."""
        return {name: tensor.detach() for name, tensor in self._outside().items()} | {"random": torch.get_rng_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore this state."""
        torch.set_rng_state(state["random"])
        with torch.no_grad():
            for name, tensor in self._outside().items():
                tensor.copy_(state[name])

    def _outside(self) -> dict[str, Tensor]:
        names = ("curr_log_alpha", "moving_avg_sqd_adv_norms_per_module")
        held = {name: getattr(self.learner, name)[DEFAULT_MODULE_ID] for name in names if hasattr(self.learner, name)}
        return {name: tensor for name, tensor in held.items() if isinstance(tensor, Tensor)}


def algorithm_config(config: PolicyConfig, seed: int) -> AlgorithmConfig:
    """The RLlib algorithm of `policy.learner` with our settings; all other settings keep RLlib's defaults."""
    algorithm: AlgorithmConfig = imported(type(config).makes)(config)
    return (
        algorithm.rl_module(model_config=_model(config))
        .learners(num_learners=0, num_gpus_per_learner=0)
        .debugging(seed=seed, log_level="ERROR")
    )


def bc(config: RLlibBCConfig) -> AlgorithmConfig:
    """Behaviour cloning."""
    return BCConfig().training(**_common(config), lr=config.learning_rate)


def marwil(config: RLlibMARWILConfig) -> AlgorithmConfig:
    """Monotonic advantage re-weighted imitation learning."""
    return MARWILConfig().training(**_common(config), lr=config.learning_rate, beta=MARWIL_BETA)


def iql(config: RLlibIQLConfig) -> AlgorithmConfig:
    """Implicit Q-learning."""
    rate = config.learning_rate
    return IQLConfig().training(
        **_common(config),
        **_critic(config),
        beta=config.temperature,
        expectile=config.expectile,
        actor_lr=rate,
        critic_lr=rate,
        value_lr=rate,
    )


def cql(config: RLlibCQLConfig) -> AlgorithmConfig:
    """Conservative Q-learning."""
    rate = config.learning_rate
    # By default CQL clones behaviour for its first 20,000 iterations, which may be a whole short run.
    return CQLConfig().training(
        **_common(config), **_critic(config), bc_iters=0, actor_lr=rate, critic_lr=rate, alpha_lr=rate, lr=None
    )


def _common(config: PolicyConfig) -> dict[str, Any]:
    return {"gamma": config.discount, "train_batch_size_per_learner": 2 * config.batch_size}


def _critic(config: PolicyConfig) -> dict[str, Any]:
    return {"twin_q": True, "tau": config.target_rate, "target_network_update_freq": 0}


def _model(config: PolicyConfig) -> DefaultModelConfig:
    """Two hidden layers of `width`, ReLU, for policy and value.

    RLlib's Q-networks encode observation and action separately and fuse them, which makes three layers.
    """
    width = [config.width]
    return DefaultModelConfig(
        fcnet_hiddens=width,
        fcnet_activation="relu",
        head_fcnet_hiddens=width,
        head_fcnet_activation="relu",
        fusionnet_hiddens=[],
        fusionnet_activation="relu",
        vf_share_layers=False,
    )


_METRICS = {
    "total_loss": "total_loss",
    "policy_loss": "actor_loss",
    "qf_loss": "critic_loss",
    "vf_loss": "value_loss",
    "alpha_value": "alpha",
}
"""RLlib's name of a metric to our name under `policy/`."""


def _peek(results: dict[str, Any]) -> dict[str, float]:
    """RLlib's metrics as floats, unwrapped if necessary."""
    return {name: float(value.peek() if hasattr(value, "peek") else value) for name, value in results.items()}


def save_module(learner: BaselineLearner, prepared: Preprocessing, path: Path) -> None:
    """Save the RLModule's weights together with the statistics that standardise its observations."""
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in learner.module.state_dict().items()}
    tensors["observation_mean_O"] = torch.from_numpy(np.array(prepared.observation_mean))
    tensors["observation_std_O"] = torch.from_numpy(np.array(prepared.observation_std))
    save_file(tensors, path)


def seed_everything(seed: int) -> None:
    """Seed the global generators, from which RLlib draws initial weights and actions."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
