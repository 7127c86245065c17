"""What the folders `items/`, `requests/` and `searches/` must hold, and who owns a column.

Every reader of a user's folders goes through here, so a rule is written once. A new rule refuses
data that was taken before: it needs a test that shows the line the user sees.

Read first: requests.py, then items.py.
"""
