"""Pictures and texts of items and searches: streamed in parts, or packed to be read at random.

`apps.pack` writes packed content with `pack.py`; `packed.py` holds its layout, which content
packed before must keep. `item_stream.py` reads `items/` in order and copies nothing. Both take
columns by `content_columns.py` and pictures by `images.py`.

Read first: packed.py
"""
