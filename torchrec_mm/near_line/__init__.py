"""Near-line: item events in, vectors in the live index, seconds later.

A source gives messages, an encoder of phase one makes vectors, the index's log takes them, and only
then is a message acknowledged. Whatever is killed, nothing is lost, and what comes twice changes
nothing.

Read first: updater.py
"""
