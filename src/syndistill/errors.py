"""The one exception that a user is meant to read."""


class SyndistillError(Exception):
    """Bad input: one line that says what is wrong, where, and how to mend it (CLI exit code 2)."""
