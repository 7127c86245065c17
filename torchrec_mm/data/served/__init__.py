"""What a scorer's log says was shown, and what came of it: requests with labels.

Read first: labels.py, the rules
"""
