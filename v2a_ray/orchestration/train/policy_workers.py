"""One policy on several workers, for batches large enough for several GPUs.

Every worker opens the tables (one copy per node) and draws and filters its part of the batch. All workers apply the
mean gradient, so a step equals the step of one worker on all transitions that they kept.
"""

from __future__ import annotations

from v2a_ray.data.loading.streaming import is_streamed
from v2a_ray.engine.context import Job
from v2a_ray.engine.data_parallel import Workers
from v2a_ray.errors import ConfigError
from v2a_ray.orchestration.train.workers import fit_on_workers, with_gpus
from v2a_ray.stages.policy.config import IQLConfig
from v2a_ray.stages.policy.training import PolicyTables, PolicyTraining, memory_of_tables


def fit_policy_parallel(job: Job) -> None:
    """Train the policy with `policy.num_workers` workers. The caller must reserve no CPU.

    Raises:
        ConfigError: a table would have to be streamed.
    """
    config = job.config.policy
    assert isinstance(config, IQLConfig)  # no other learner has workers
    for role, memory in memory_of_tables(job).items():
        if is_streamed(job.rows(role), memory):
            # A checkpoint holds the position of one worker's stream, not of the other workers'.
            raise ConfigError(
                f"several workers cannot stream a table, and the {role} is more than {memory / 2**30:,.2f} GiB",
                where="policy.num_workers",
                remedy="raise loading.memory_gib, if the nodes have the memory, or train with one worker",
            )
    fit_on_workers(_train, with_gpus(job, config), config)


def _train(job: Job, workers: Workers) -> None:
    training = PolicyTraining(job, PolicyTables.open(job), workers)
    training.loop.run(training.learner)
    if workers.rank == 0:
        training.finish()
