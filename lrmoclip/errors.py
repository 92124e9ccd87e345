"""Mistakes that a user can mend: one line that names the file, field or value and the way out."""


class UserError(Exception):
    """A user's mistake. The command line prints it as one line and exits with status 2.

    `message` names what is wrong and where; `hint` says what to do about it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message.rstrip('.')}. {hint}".strip())
        self.message = message
        self.hint = hint
