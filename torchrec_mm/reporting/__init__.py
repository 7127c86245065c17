"""From run folders to tables, figures and one HTML page that needs nothing but itself.

Reads files that commands promise, of runs, data and item vectors, and opens no model: a run of
another version or by hand is reported, too. A figure that no file holds is left blank.

Read first: report.py
"""
