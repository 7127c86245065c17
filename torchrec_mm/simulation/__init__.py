"""Made-up data whose truth is known: how good can a model be at most?

First `market`, items, users, clicks and searches with pictures and titles; then `taobao_mm`,
tables of the shape and size of TAOBAO-MM. No training room imports them.

Read first: market/clicks.py, the rule by which users click.
"""
