"""Tables of the names, types and sizes of TAOBAO-MM, made up, to measure speed and memory.

Read first: simulate.py; names of tables and columns are those of data.encode.
"""
