"""Item vectors of all items, in parts that outlive a kill; and queries to search them by.

The same command ends with the same bytes, however often it was killed and on however many ranks:
what a part holds may depend on its index alone.

Read first: vector_run.py, then vector_makers.py.
"""
