"""Mistakes that a user can mend: one line that names the file, field or value and the way out."""

import re

_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class UserError(Exception):
    """A user's mistake. The command line prints it as one line and exits with status 2.

    `message` names what is wrong and where; `hint` says what to do about it. Whatever in them would
    break the line, such as a newline in a file's name, becomes a space.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(_BREAKS.sub(" ", f"{message.rstrip('.')}. {hint}").strip())
        self.message = message
        self.hint = hint
