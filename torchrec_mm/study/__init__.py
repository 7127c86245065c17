"""What helps and what does not: a recipe's rows trained alike, tuned alike, and compared.

The rows of a recipe differ in one thing each; whatever is fair about the comparison is said here
once: the same tuning budget on a validation split cut from training, the test split read once, the
same resamples of users.

Read first: recipe.py, then plan.py
"""
