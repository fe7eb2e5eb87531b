"""The modality stage: z of every source episode, by one shared encoder or one encoder per source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from v2a_ray.engine.keys import moving, plugin_content
from v2a_ray.engine.rates import Cost, Tables
from v2a_ray.engine.stage import SOURCE, SOURCE_ROWS, TABLES, Request, Stage
from v2a_ray.stages.modality.config import ENCODERS

if TYPE_CHECKING:
    from v2a_ray.experiments.experiment import ExperimentConfig

LATENT = {"modality": "modality"}
"""Input of a stage that reads z."""


class ModalityStage(Stage):
    """z of every source episode."""

    name = "modality"
    fits = "v2a_ray.stages.modality.fit:fit_modality"
    fits_parallel = "v2a_ray.orchestration.train.modality_workers:fit_modality_parallel"

    def inputs(self, config: ExperimentConfig) -> Mapping[str, str]:
        """See `Stage`."""
        return TABLES if config.modality.include_target else {SOURCE: SOURCE}

    def requests(self, config: ExperimentConfig) -> list[Request]:
        """See `Stage`; with `per_source`, one request per source, then the request that joins their columns."""
        inputs = self.inputs(config)
        settings = moving(config.modality) | plugin_content(ENCODERS[config.modality.encoder])
        if config.modality.mode == "shared":
            return [Request(inputs, settings)]
        labels = [source.label for source in config.sources]
        own = [Request({SOURCE: SOURCE}, settings | {"part": label}, SOURCE_ROWS, label) for label in labels]
        fitted = {f"modality/{label}": f"modality/{label}" for label in labels}
        return [*own, Request({**inputs, **fitted}, settings, SOURCE_ROWS)]

    def costs(self, config: ExperimentConfig, tables: Tables) -> list[Cost]:
        """Per step: a GRU's three gates, or the matrix between two hidden layers, and the decoder ensemble."""
        section = config.modality
        encoder = (3 if section.encoder == "gru" else 1) * section.encoder_width**2
        decoders = section.num_decoders * section.decoder_layers * section.decoder_width**2
        # Without crops, an episode has at most a thousand steps.
        steps = section.crop_steps or 1000
        kind = f"modality {section.optimization}" + ("" if section.encoder == "gru" else f" {section.encoder}")
        return [Cost(kind, section.num_steps, float(section.batch_size * steps * (encoder + decoders)))]
