"""From the folders a user brings to the batches of a training step.

In the order of the data: `contract`, what the folders hold; `prepare`, logs to such folders;
`content`, their pictures and texts; `encode`, ids to table rows; `encoded`, the result, read back;
`stream`, batches of it.

Read first: contract/requests.py. README.md is the guide "Train on my logs".
"""
