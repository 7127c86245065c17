"""Backbone and head of each modality, the gate of both, and what is kept of them on disk.

Weights, preprocessing and versions make an encoder's fingerprint: whoever changes what an encoder
computes changes the origin of its vectors, and old ones must not be mixed with new ones.

Read first: item_encoder.py, with side.py, what it reads.
"""
