"""A trained run applied: its checkpoint opened, requests scored, figures and files written.

Nothing learns here. Whatever is computed from given logits is the same to the last bit on any
number of ranks; keep it so.

Read first: trained_run.py, then score.py
"""
