"""Settings of this folder's tests."""

from __future__ import annotations

import torch

# Networks here are tiny: more threads than one only wait for each other, most of all on a busy machine.
torch.set_num_threads(1)
