"""Behaviours that come while the scorer runs: on disk before they are acknowledged, read by user.

Read first: store.py
"""
