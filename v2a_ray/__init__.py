"""Ray-distributed experimentation for heterogeneous cross-domain offline reinforcement learning."""
