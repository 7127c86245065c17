"""Commands one after another: what each would make, whether it is there, and how it is run.

A stage's folder is named by the fingerprint of all that its result depends on. A flag that changes
a result must change the fingerprint; one that does not must not.

The many short runs of a comparison share processes instead: jobs.py.

Read first: chain.py
"""
