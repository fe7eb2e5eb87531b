"""Ray-distributed experimentation for heterogeneous cross-domain offline reinforcement learning."""

__version__ = "0.1.0"
