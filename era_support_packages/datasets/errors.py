"""The error of data that is there but cannot be used."""

from era_support_packages.system.plain_error import PlainError


class DatasetError(PlainError, RuntimeError):
    """The data is there but cannot be used, e.g. a corrupt file; the message names the file and the remedy."""
