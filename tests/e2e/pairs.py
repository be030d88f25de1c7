"""Latency while something goes on, beside that of the seconds just before: a machine that is busy with other things is so in both."""

import statistics
import time
from contextlib import contextmanager

# Seconds that count as the baseline of what follows.
CALM = 5
# A p99 may be so many times that of its baseline, and below so many microseconds whatever that is.
TIMES = 3
WELL = 5_000


class Pairs:
    def __init__(self):
        self.pairs = []

    @contextmanager
    def beside(self, stock):
        """The body is held against the calm before it, in which `stock` made its calls."""
        stock.goes_on(1)  # What came of the change before is over.
        calm = time.monotonic()
        stock.goes_on(CALM)
        began = time.monotonic()
        yield
        self.pairs.append((calm, began, time.monotonic()))

    def hold(self, report):
        """For `larder bench`'s report: Python's own pauses are longer than what is looked for."""
        rows = []
        for calm, began, ended in self.pairs:
            before, during = median(report, calm, began), median(report, began, ended)
            rows.append((during / before, during, before))
        times, during, before = sorted(rows)[len(rows) // 2]
        print(f"p99 of a second, median of {len(rows)} pairs: {during} us, before {before} us ({times:.1f} times)")
        assert times <= TIMES or during <= WELL, rows


def median(report, began, ended):
    """Of the p99s of the seconds that two moments are in, and of those between."""
    rows = [p99 for end, p99 in report["of_seconds"] if end > began and end - 1 < ended]
    assert rows, f"no call ended between {began} and {ended}"
    return statistics.median(rows)
