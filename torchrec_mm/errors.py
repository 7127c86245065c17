"""Exceptions that are told in one line: what the user can fix, and training that cannot go on."""


class InputError(ValueError):
    """Bad input from outside: a flag, a file, a value in the data.

    The message is one line naming field, rule and value; commands print it and exit with status 2
    (see ``torchrec_mm.config.run``). Anything else that escapes is our bug and keeps its traceback.
    """


class HostError(InputError):
    """Bad input that one host of several has to itself: its first process says so, each its own."""


class TrainingDiverged(RuntimeError):
    """The loss is NaN or infinite: one line says where, and which checkpoint is still good."""
