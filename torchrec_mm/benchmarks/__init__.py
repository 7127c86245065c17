"""Ours against a baseline, both sides in turn in one run, one JSON line a comparison.

A benchmark is a module with a config and ``compare``; ``apps.benchmark`` finds it by its name. A
figure in a document is printed by one of these; nothing here is needed for training.

Read first: harness.py
"""
