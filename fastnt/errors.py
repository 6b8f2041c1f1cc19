"""The exceptions and warnings that carry a sentence for the user, not a traceback."""

import logging


class UserError(Exception):
    """Bad input or a bad environment: what is wrong, where, and how to mend it, in one sentence.

    The command line prints it as ``fastnt: error: <sentence>`` and exits with code 2.
    """


class Diverged(UserError):
    """A training whose loss or weights are not finite any more: its recipe is at fault, nothing else."""


class Interrupted(BaseException):
    """A run was stopped by SIGINT or SIGTERM; the sentence says how to go on with it.

    As KeyboardInterrupt it is no Exception, so that nothing takes it for a failure and goes on.
    The command line prints it as ``fastnt: interrupted: <sentence>`` and exits with code 130.
    """


def warn(sentence: str) -> None:
    """Tell the user in one line, through the logger ``fastnt``; by default that is stderr."""
    logging.getLogger("fastnt").warning("fastnt: warning: %s", sentence)
