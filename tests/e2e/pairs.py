"""Latency while something goes on, beside that of the seconds just before."""

import statistics
import time
from contextlib import contextmanager
from pathlib import Path

# Seconds that count as the baseline of what follows.
CALM = 5
# A p99 may be so many times that of its baseline, and below so many microseconds whatever that is.
TIMES = 3
WELL = 5_000
# A pair is void when for so much of its calm somebody waited for a CPU: then it is others' work on this machine that is measured.
STARVED = 0.4


class Pairs:
    def __init__(self):
        self.pairs, self.void = [], 0

    @contextmanager
    def beside(self, stock):
        """The body is held against the calm before it, in which `stock` made its calls."""
        stock.goes_on(1)  # What came of the change before is over.
        calm, waited = time.monotonic(), waiting()
        stock.goes_on(CALM)
        began, starved = time.monotonic(), (waiting() - waited) / (time.monotonic() - calm)
        yield
        print(f"CPU waited for in {starved:.0%} of the calm")
        if starved <= STARVED:
            self.pairs.append((calm, began, time.monotonic()))
        else:
            self.void += 1

    def hold(self, report):
        """For `larder bench`'s report: Python's own pauses are longer than what is looked for."""
        rows = []
        for calm, began, ended in self.pairs:
            before, during = median(report, calm, began), median(report, began, ended)
            rows.append((during / before, during, before))
        print(f"p99 of a second: {len(rows)} pairs, and {self.void} void because the machine is busy with other things")
        if rows:
            times, during, before = sorted(rows)[len(rows) // 2]
            print(f"the median: {during} us, before {before} us ({times:.1f} times)")
            assert times <= TIMES or during <= WELL, rows


def median(report, began, ended):
    """Of the p99s of the seconds that two moments are in, and of those between."""
    rows = [p99 for end, p99 in report["of_seconds"] if end > began and end - 1 < ended]
    assert rows, f"no call ended between {began} and {ended}"
    return statistics.median(rows)


def waiting():
    """Seconds since the start in which something that could run had no CPU; 0 where the kernel does not count them."""
    try:
        some = Path("/proc/pressure/cpu").read_text().splitlines()[0]
    except OSError:
        return 0.0
    return int(some.rsplit("=", 1)[1]) / 1e6
