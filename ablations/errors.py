"""The errors that the toolkit raises on purpose. Classes only, without imports, so that every module can use them."""


class ConfigError(ValueError):
    """A setting that cannot work: the message says what was expected, what was given and what to do."""


class RecordError(ValueError):
    """A record that cannot be read: the message names the file and says what was expected and what to do."""


class DamagedRecord(RecordError):
    """A record that is not what was written."""


class TrainingError(RuntimeError):
    """Training cannot continue: the message says what happened and what to do."""


class WorkerLost(RuntimeError):
    """The process of a job ended without returning a result."""


class Stopped(Exception):
    """The work stopped because it was asked to; the same command continues it."""


class Desynchronised(RuntimeError):
    """An error interrupted a collective operation, which the other ranks now wait for indefinitely.

    Its `__cause__` is that error.
    """
