"""The one family of errors that a person is meant to read."""

from __future__ import annotations


class ScalperError(Exception):
    """An expected failure. The text names the thing, its value and the way out, in one paragraph.

    Command lines print it without a traceback and exit with ``exit_code``; anything else that escapes
    is a defect and keeps its traceback.
    """

    exit_code = 2


class RecordingError(ScalperError):
    """A recording is missing, of another schema, or damaged."""


class ConfigError(ScalperError):
    """A configuration value is unknown, of the wrong type or impossible."""


class BundleError(ScalperError):
    """A model bundle is missing, altered, unsigned, expired or made for another schema."""


class RegistryError(ScalperError):
    """The model registry does not answer or does not hold what was asked for."""


class BrokerError(ScalperError):
    """The broker refused, or cannot be reached."""
