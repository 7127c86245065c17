"""Public data sets, as they are published, to the folders of the data contract.

An adapter is one file, which cites where its format is described and states what is a label, a
request and a test row. Each streams: tables are sorted by DuckDB or read a block at a time.

Read first: public_data.py, what an adapter gives; users.py, rows with a label to requests.
"""
