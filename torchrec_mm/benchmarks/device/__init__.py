"""What a device does by itself: batches lie ready in memory, nothing is read or made meanwhile.

Read first: held.py
"""
