"""Neural networks shared by all stages, and the matrix products that they are built from."""

from v2a_ray.networks.kernels import chosen_products, product
from v2a_ray.networks.modules import (
    LOG_STD_RANGE,
    GRUEncoder,
    PooledEncoder,
    TanhActor,
    adam,
    gaussian_log_density,
    update_target,
)
from v2a_ray.networks.perceptrons import MLP, EnsembleMLP, NormalizedEnsembleMLP, layers_of, perceptrons

__all__ = [
    "LOG_STD_RANGE",
    "MLP",
    "EnsembleMLP",
    "GRUEncoder",
    "NormalizedEnsembleMLP",
    "PooledEncoder",
    "TanhActor",
    "adam",
    "chosen_products",
    "gaussian_log_density",
    "layers_of",
    "perceptrons",
    "product",
    "update_target",
]
