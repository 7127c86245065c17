"""From run folders to tables, figures and one HTML page that needs nothing but itself.

Reads only files that commands promise (``metrics.json``, ``retrieval.json``), so a run of another
version or by hand is reported, too. A figure that no file holds is left blank, never guessed.

Read first: report.py
"""
