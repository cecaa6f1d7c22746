"""Errors about files: one line that begins with the file's name."""

from __future__ import annotations


class FileError(ValueError):
    """A file cannot be read, used or written; the message names it, the rule and the value."""


class UnusablePathError(FileError):
    """The path itself is wrong: absent, in a format that is not handled, or in the way of another file."""
