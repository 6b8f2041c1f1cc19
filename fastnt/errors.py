"""The exceptions and warnings that carry a sentence for the user, not a traceback."""

import logging


class UserError(Exception):
    """Bad input or a bad environment: what is wrong, where, and how to mend it, in one sentence.

    The command line prints it as ``fastnt: error: <sentence>`` and exits with code 2.
    """


class Diverged(UserError):
    """A training diverged: its loss or its weights are not finite. The cause is its recipe."""


class Interrupted(BaseException):
    """A signal stopped a run; the message says how to go on with it.

    Like KeyboardInterrupt it is no Exception, so that code that handles failures lets it pass.
    The command line prints it as ``fastnt: interrupted: <sentence>`` and exits with code 130.
    """


def warn(sentence: str) -> None:
    """Warn the user in one line, through the logger ``fastnt``, which by default prints to stderr."""
    logging.getLogger("fastnt").warning("fastnt: warning: %s", sentence)
