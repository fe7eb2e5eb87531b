"""Neural networks, written once and shared by every stage, and the products that they are made of."""

from v2a_ray.networks.kernels import has_kernels, perceptron, perceptrons, product
from v2a_ray.networks.modules import (
    LOG_STD_RANGE,
    MLP,
    EnsembleMLP,
    GRUEncoder,
    PooledEncoder,
    TanhActor,
    adam,
    gaussian_log_density,
    mlp,
    update_target,
)

__all__ = [
    "LOG_STD_RANGE",
    "MLP",
    "EnsembleMLP",
    "GRUEncoder",
    "PooledEncoder",
    "TanhActor",
    "adam",
    "gaussian_log_density",
    "has_kernels",
    "mlp",
    "perceptron",
    "perceptrons",
    "product",
    "update_target",
]
