"""Collections of tables on GPUs, where TorchRec's own way of one-id bags is not the best.

Read first: one_id.py
"""
