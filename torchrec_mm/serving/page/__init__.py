"""A page for people: a user's past, ranked candidates with pictures, and what made each score.

HTML alone, without a script: a form that asks by GET, and an answer.

Read first: explain.py
"""
