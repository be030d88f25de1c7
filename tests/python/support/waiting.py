"""Bounded waits on values."""

import time


def until(what, check, seconds=10.0):
    """The first true answer of `check`; fails with `what` when there is none in time."""
    end = time.monotonic() + seconds
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)


class Stopwatch:
    """Seconds that the body of a `with` took."""

    def __enter__(self):
        self._began = time.monotonic()
        return self

    def __exit__(self, *_):
        self.seconds = time.monotonic() - self._began

    def so_far(self):
        return time.monotonic() - self._began
