"""What measures the running system: clients, checkpoints that come while it serves, processes.

Read first: load.py
"""
