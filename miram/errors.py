"""The one exception that is written for users."""


class MiramError(Exception):
    """An error that the user can correct.

    `message` names the thing (file, UID, key, value) and what is wrong with it; `remedy` says what to do. The command
    line prints both without a stack trace and exits with `exit_code`.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message}\n{remedy}")
        self.message = message
        self.remedy = remedy


class ParameterError(MiramError):
    """A key or value of params.yaml (or of the command line) that is not allowed; nothing has run yet."""

    exit_code = 2
