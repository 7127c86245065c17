"""Where these tests run: interpreted on the CPU; compiled on a GPU, for tests/gpu."""

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EXAMPLES = 25  # of each property: the interpreter takes tens of milliseconds for one
