"""The short way on CPUs, alone or over gloo: same weights, plan and checkpoints, less around them.

TorchRec's sharded modules and pipelines are made to hide copies and messages behind a GPU's work.
Here a step of a small model takes less time than they take to get ready for it.

Read first: forward.py
"""
