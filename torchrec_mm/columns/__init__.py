"""Files of columns to arrays: Parquet and CSV, held to promised types, every mistake named.

Knows nothing of items, requests or models: what a column means is for `data.contract`. How files
are read may change; what is refused, and in which words, is stated by the tests.

Read first: parquet_folder.py, a folder of files as one table. Lists are in jagged.py.
"""
