"""Runs the support stages on files: behaviour density, target dynamics, and corrections of source transitions."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file, save_file

from v2a_ray.data.loading.memory_mapped import MemoryMappedTransitions
from v2a_ray.data.loading.sampler import Column, TransitionSampler, of_recorded_arrivals
from v2a_ray.data.loading.streaming import open_transitions
from v2a_ray.engine.columns import read_step_column, write_step_column
from v2a_ray.engine.context import Job, preprocessing
from v2a_ray.engine.trainer import use_threads
from v2a_ray.settings.base import TrainingConfig
from v2a_ray.stages.support.conditional_vae import BehaviorDensity, ConditionalVAE, DensityLearner, behavior_split
from v2a_ray.stages.support.correction import ACTION, KEPT, REWARD, CorrectionLearner
from v2a_ray.stages.support.dynamics import DynamicsLearner, DynamicsModel


def fit_density(job: Job) -> None:
    """Fit the density of a behaviour policy and write the model."""
    config, seed = job.config.density, job.config.upstream_seed
    use_threads(config.num_threads)
    roles = ["target"] if config.fit_to == "target" else ["source", "target"]
    samplers = _transitions(job, config, *roles, num_sharing=len(roles))
    torch.manual_seed(seed)
    model = _density_model(job)
    learner = DensityLearner(model, behavior_split, list(samplers.values()), config, seed)
    history = job.loop(config, samplers=samplers).run(learner)
    save_file(model.state_dict(), job.output / "model.safetensors")
    job.write_history(history)


def load_density(job: Job, device: torch.device) -> BehaviorDensity:
    """Load the density written by `fit_density`."""
    model = _density_model(job)
    model.load_state_dict(load_file(job.inputs["density"] / "model.safetensors"))
    return BehaviorDensity(model.to(device), job.config.density.num_samples)


def _density_model(job: Job) -> ConditionalVAE:
    config, target = job.config.density, job.rows("target")
    latent_dim = config.latent_dim or 2 * target.action_dim
    return ConditionalVAE(1, target.observation_dim, target.action_dim, latent_dim, config.width)


def fit_dynamics(job: Job) -> None:
    """Fit models of the target's dynamics and write them."""
    config, seed = job.config.dynamics, job.config.upstream_seed
    use_threads(config.num_threads)
    target = of_recorded_arrivals(_transitions(job, config, "target")["target"], job.rows("target"))
    torch.manual_seed(seed)
    learner = DynamicsLearner(target, config, seed)
    history = job.loop(config, samplers={"target": target}).run(learner)
    save_file(learner.model.state_dict(), job.output / "model.safetensors")
    job.write_history(history)


def load_dynamics(job: Job, device: torch.device) -> DynamicsModel:
    """Load the models written by `fit_dynamics`, with frozen parameters."""
    config, target = job.config.dynamics, job.rows("target")
    model = DynamicsModel(config.num_members, target.observation_dim, target.action_dim, config.width)
    model.load_state_dict(load_file(job.inputs["dynamics"] / "model.safetensors"))
    return model.requires_grad_(False).to(device)


def fit_correction(job: Job) -> None:
    """Fit the correction models and write the corrected source columns, one file per column."""
    config, seed = job.config.correction, job.config.upstream_seed
    use_threads(config.num_threads)
    tables = _transitions(job, config, "source", "target")
    source, target = tables["source"], of_recorded_arrivals(tables["target"], job.rows("target"))
    torch.manual_seed(seed)
    learner = CorrectionLearner(target, load_dynamics(job, target.device), config, seed)
    history = job.loop(config, samplers={"target": target}).run(learner)
    found, rows = learner.correct(source), job.rows("source")
    for name, values in found.items():
        write_step_column(job.output / f"{name}.parquet", name, rows, values.cpu().numpy())
    (job.output / "summary.json").write_text(json.dumps({"kept_fraction": float(found[KEPT].mean())}))
    job.write_history(history)


def corrections(job: Job, source: MemoryMappedTransitions) -> dict[str, Column]:
    """The columns written by `fit_correction`; empty if the experiment corrects nothing."""
    if "correction" not in job.inputs:
        return {}
    widths = {ACTION: source.action_dim, REWARD: None, KEPT: None}
    folder = job.inputs["correction"]
    return {name: read_step_column(folder / f"{name}.parquet", name, source, width) for name, width in widths.items()}


def _transitions(job: Job, training: TrainingConfig, *roles: str, num_sharing: int = 2) -> dict[str, TransitionSampler]:
    """Tables by role, all on one device; each may use 1 / `num_sharing` of the memory."""
    memory, prepared = job.memory_bytes // num_sharing, preprocessing(job)
    device = job.device(training, **dict.fromkeys(roles, memory))
    return {
        role: open_transitions(
            job.rows(role), prepared, memory_bytes=memory, seed=job.config.upstream_seed, device=device
        )
        for role in roles
    }
