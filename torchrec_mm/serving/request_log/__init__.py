"""What was scored, kept as tomorrow's training data: Parquet in the layout of requests/.

Read first: rows.py
"""
