"""A stock gRPC client at the Service's address: it knows nothing of the ring, stays with the replica that it was led to, and retries as any
gRPC client may. A second witness beside `larder bench`, which shares no code with it."""

from collections import Counter

from host import reachable

from support.checker import Checker


class Stock:
    """Runs from `with` on until `end`, which reads every key once more and returns what was found, in `larder bench`'s words."""

    def __init__(self, release, **options):
        self.checker = checker([reachable(release.json("service", release.fullname)["spec"]["clusterIP"])], release.token, **options)

    @classmethod
    def at(cls, targets, token, **options):
        """At these replicas, in turn, whatever the Service says."""
        made = cls.__new__(cls)
        made.checker = checker(targets, token, **options)
        return made

    def __enter__(self):
        self.checker.__enter__()
        return self

    def __exit__(self, *_):
        self.checker.__exit__()

    def goes_on(self, seconds):
        """Waits until it has made the calls of so many seconds."""
        self.checker.goes_on(seconds)

    def end(self):
        its = self.checker
        its.stop()
        times = its.times[: its.finished]
        seconds = [second for _, second in times]
        ends = [moment for moment, _ in times]
        return {
            "verdict": "passed",  # Or `stop` has said that the run is void.
            "achieved_percent": 100 * its.finished / its.planned,
            "failed": len(its.failed),
            "lost": len(its.lost),
            "stale": len(its.stale),
            "corrupt": 0,
            "unread": 0,
            "errors": dict(Counter(f"{code.name}: {details}" for _, code, details in its.failed)),
            "longest_gap_ms": 1e3 * max((after - before for before, after in zip(ends, ends[1:], strict=False)), default=0),
            "p50_us": microseconds(quantile(seconds, 0.5)),
            "p99_us": microseconds(quantile(seconds, 0.99)),
            "max_us": microseconds(max(seconds)),
        }


def checker(addresses, token, rate=1000, keys=10_000, connect=None):
    return Checker(addresses, rate=rate, keys=keys, value_bytes=256, token=token, deadline=1.0, connect=connect)


def quantile(values, part):
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


def microseconds(seconds):
    return round(seconds * 1e6)
