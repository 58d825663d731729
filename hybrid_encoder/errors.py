"""The one error of this package that is meant for the person at the keyboard."""


class UserError(ValueError):
    """Something the user can mend: says what was found, what was expected and what to type.

    The command line prints its message without a traceback and exits with status 2.
    """
