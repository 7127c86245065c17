"""The live index: item vectors of now, for readers that go on while items come and go.

A published snapshot, mapped, and a small overlay of what came since, read from a durable log. One
folder holds it all; ``README.md`` of ``torchrec_mm/near_line`` tells how it is filled and served.

Read first: reader.py
"""
