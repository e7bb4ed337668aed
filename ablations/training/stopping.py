"""Stopping on request: long computations check at safe points whether to stop."""

from collections.abc import Callable

from ablations.errors import Stopped

_stop_requested: Callable[[], bool] = lambda: False  # noqa: E731


def stop_when(requested: Callable[[], bool]) -> None:
    """From now on, work in this process stops at its next opportunity once requested() is true."""
    global _stop_requested
    _stop_requested = requested


def stop_requested() -> bool:
    return _stop_requested()


def check_stop() -> None:
    """Raises Stopped if the work was asked to stop; called at points where little is lost."""
    if stop_requested():
        raise Stopped("stopped on request")
