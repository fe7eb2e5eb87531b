"""What all settings share: the base class, the training loop, and the types of numbers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0, strict=True)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0, le=1.0)]
DeviceName = Literal["auto", "cpu", "cuda"]


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class TrainingConfig(Settings):
    """What every trained stage has."""

    num_steps: Positive
    """Update steps."""
    batch_size: Positive
    """Samples per update step."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-4
    """Adam's."""
    checkpoint_interval_steps: Positive = 1000
    """Steps that a kill can cost at most."""
    log_interval_steps: Positive = 100
    """Steps between recorded metrics."""
    num_threads: Positive = 1
    """CPU threads of one process. Results on CPU are bit-identical for equal seeds and equal threads."""
    device: DeviceName = "auto"
    """Where tables and networks are. `auto`: on a GPU where the stage has one, else on the CPU. `cuda` insists. A GPU
    draws other random numbers, which moves results as another seed would; artifacts are shared all the same."""
