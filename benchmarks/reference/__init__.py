"""The published update step of each stage, written naively from its description: what ours is measured against.

Same tensors and same number of network evaluations as published, in plain torch: separate networks for the members of
an ensemble, one forward and backward pass per loss, default Adam. Each reference is made from a learner of ours, with
its configuration and a copy of its weights, and is handed batches; so both can be given the same ones, and
`tests/test_reference_steps.py` shows that their losses then stay equal, step after step.

Shape suffixes are those of the stages (`v2a_ray.stages`).
"""

from benchmarks.reference.advantage import AdvantageReference
from benchmarks.reference.alignment import ContrastiveReference
from benchmarks.reference.modality import ModalityReference
from benchmarks.reference.policy import PolicyReference

__all__ = ["AdvantageReference", "ContrastiveReference", "ModalityReference", "PolicyReference"]
