"""The one exception that stands for bad input: it carries a sentence for the user, not a traceback."""


class UserError(Exception):
    """Bad input or a bad environment: what is wrong, where, and how to mend it, in one sentence.

    The command line prints it as ``fastnt: error: <sentence>`` and exits with code 2.
    """
