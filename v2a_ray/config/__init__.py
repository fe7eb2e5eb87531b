"""Every setting of an experiment: typed, with its unit, default and meaning.

YAML files hold only what differs from these defaults. Counts are `num_`, durations end in `_steps` or `_episodes`,
`source_` and `target_` are never abbreviated. Constants are the published ones (V2A 2605.24862, IQL 2110.06169,
IGDF 2405.06192, Sparse QL 2303.15810) unless the docstring under a field says otherwise.
"""

from v2a_ray.config.base import DeviceName, Fraction, Positive, Rate, Settings, TrainingConfig
from v2a_ray.config.columns import (
    AdvantageConfig,
    AlignmentConfig,
    CorrectionConfig,
    DensityConfig,
    DynamicsConfig,
    ModalityConfig,
)
from v2a_ray.config.data import (
    TARGET_LABEL,
    CheckName,
    CheckSeverity,
    DataSpec,
    FeedingConfig,
    MixConfig,
    PreprocessingConfig,
    SourceSpec,
    TargetSpec,
)
from v2a_ray.config.experiment import EvaluationConfig, ExperimentConfig
from v2a_ray.config.policy import (
    AWACConfig,
    BOSAConfig,
    DROCOConfig,
    FilterConfig,
    GroupedConfig,
    PolicyConfig,
    TD3BCConfig,
)
from v2a_ray.config.sweep import Distribution, SchedulerConfig, SearchConfig, SweepConfig

__all__ = [
    "TARGET_LABEL",
    "AWACConfig",
    "AdvantageConfig",
    "AlignmentConfig",
    "BOSAConfig",
    "CheckName",
    "CheckSeverity",
    "CorrectionConfig",
    "DROCOConfig",
    "DataSpec",
    "DensityConfig",
    "DeviceName",
    "Distribution",
    "DynamicsConfig",
    "EvaluationConfig",
    "ExperimentConfig",
    "FeedingConfig",
    "FilterConfig",
    "Fraction",
    "GroupedConfig",
    "MixConfig",
    "ModalityConfig",
    "PolicyConfig",
    "Positive",
    "PreprocessingConfig",
    "Rate",
    "SchedulerConfig",
    "SearchConfig",
    "Settings",
    "SourceSpec",
    "SweepConfig",
    "TD3BCConfig",
    "TargetSpec",
    "TrainingConfig",
]
