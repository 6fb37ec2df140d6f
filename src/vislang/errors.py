"""The one exception whose message is written for the person at the keyboard."""


class UserError(Exception):
    """Something that the user can mend: the message says what was wrong, what was got,
    what is allowed and what to do. The command line prints it without a traceback and
    exits with 2; Python callers catch it like any exception.
    """
