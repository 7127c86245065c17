"""What every run has, whichever phase: its flags, folder, logs, checkpoints, and how it stops.

Knows neither phase: it saves and loads shards of tensors by name. Names of files and keys are read
by older and newer versions alike (``tests/formats``); they may be added to, not renamed.

Read first: run_folder.py, then checkpointer.py
"""
