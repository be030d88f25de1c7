"""Stock clients beside ours: what their calls take on a cluster of three replicas when half of the load comes from Larder's
client, in pipelines, and when all of it comes from stock clients. Same total rate, same keys, same mix of nine reads to a store.

Two drivers at half of the rate each; the first is tonic's own channel and is the one that is watched. The second is the same
again (without) or our client (with), in turns.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import compare

REPLICAS = 3
AT_MOST = 1.5
# Of each driver: connections (stock: one after the other over the replicas; ours: to each replica), and calls that may be
# under way on each. Enough that no call waits for a place.
CONNECTIONS, IN_FLIGHT = 6, 32


def main():
    options = parse()
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    servers_cores, clients_cores = (set(cores[:half]), set(cores[half:])) if half else (None, None)
    with tempfile.TemporaryDirectory(prefix="larder-beside-") as folder:
        replicas = start_cluster(pathlib.Path(folder), servers_cores, options)
        try:
            bench = Bench(replicas, clients_cores, options)
            bench.fill()
            print(f"load average at the start: {pathlib.Path('/proc/loadavg').read_text().strip()}")
            rows = {rate: {"tonic": [], "larder": []} for rate in options.rates}
            for number in range(options.rounds):
                print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
                for rate, beside in rows.items():
                    # Whoever comes first in one round comes last in the next.
                    for other in sorted(beside, reverse=bool(number % 2)):
                        beside[other].append(bench.measure(other, rate))
        finally:
            for replica in replicas:
                replica.end()
    report(rows, options)


def parse():
    parser = argparse.ArgumentParser(prog="benches/compare/run beside", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--window-ms", type=int, default=1500)
    parser.add_argument("--bytes", type=int, default=1024)
    parser.add_argument("--rates", type=lambda text: [int(word) for word in text.split(",")], default=[10_000, 30_000], help="calls per second, together")
    parser.add_argument("--larder", default=str(compare.BIN / "larder"))
    return parser.parse_args()


def start_cluster(folder, cores, options):
    """One after the other: each is shown to those before it, and joins the ring when it is ready."""
    members, endpoints, replicas = folder / "members.json", [], []

    def write():
        temporary = members.with_suffix(".new")
        temporary.write_text(json.dumps({"version": time.monotonic_ns(), "endpoints": endpoints}))
        temporary.rename(members)

    write()
    for number in range(REPLICAS):
        own = folder / f"replica-{number}"
        own.mkdir()
        cluster = ["--members-file", members, "--uid", own.name, "--peer-listen", "127.0.0.1:0"]
        replica = compare.start_larder(own, cores, options, cluster)
        replicas.append(replica)
        endpoints.append({"address": replica.address, "peer": replica.addresses["peer"], "uid": own.name, "ready": False})
        write()
        replica.wait_until(lambda: page(replica, "readyz") is not None)
        endpoints[-1]["ready"] = True
        write()
    for replica in replicas:
        replica.wait_until(lambda: sees_all(replica))
    return replicas


def sees_all(replica):
    members = json.loads(page(replica, "members") or '{"members": [], "settled": false}')
    return members["settled"] and sum(member["state"] == "ring" for member in members["members"]) == REPLICAS


def page(replica, name):
    try:
        with urllib.request.urlopen(f"http://{replica.addresses['admin']}/{name}", timeout=10) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, ConnectionError):
        return None


class Bench:
    def __init__(self, replicas, cores, options):
        self.cores, self.options = cores, options
        self.words = {
            "address": ",".join(replica.address for replica in replicas),
            "servers": ",".join(str(replica.pid) for replica in replicas),
            "keys": compare.KEYS,
            "bytes": options.bytes,
            "connections": CONNECTIONS,
            "window": IN_FLIGHT,
            "warm_up_ms": 500,
        }

    def fill(self):
        self.finish(self.start("larder", verb="fill"))

    def measure(self, other, rate):
        """What the watched driver saw; the other goes on for longer on either side."""
        half = rate // 2
        beside = self.start(other, verb="mix", rate=half, window_ms=self.options.window_ms + 600)
        time.sleep(0.3)
        watched = self.start("tonic", verb="mix", rate=half, window_ms=self.options.window_ms)
        seen, theirs = self.finish(watched), self.finish(beside)
        for driver in (seen, theirs):
            reached = driver["items"] / driver["seconds"] / half
            if not 0.95 < reached < 1.05:
                raise SystemExit(f"beside: a driver reached {reached:.0%} of its rate; the machine is too busy, or --rates too high")
        return seen

    def start(self, client, **words):
        words = self.words | words
        command = [compare.BIN / "client", "drive", client, *(f"{name}={value}" for name, value in words.items())]
        environment = os.environ | {"LARDER_TOKEN": compare.TOKEN}
        return subprocess.Popen(compare.pinned(self.cores, command), env=environment, stdout=subprocess.PIPE, text=True)

    @staticmethod
    def finish(driver):
        out, _ = driver.communicate(timeout=compare.DRIVER_LIMIT_S)
        if driver.returncode != 0:
            raise SystemExit("beside: a driver failed")
        return json.loads(out)


def report(rows, options):
    print(f"\n{options.bytes} B, nine Gets to a Store, {REPLICAS} replicas\n")
    print("| calls/s | stock calls | beside stock clients | beside ours | ratio | spread of the ratio |\n|--:|---|--:|--:|--:|--:|")
    verdicts = []
    for rate, beside in rows.items():
        for name in ("p50", "p99"):
            without, ours = ([one[f"{name}_us"] for one in beside[other]] for other in ("tonic", "larder"))
            ratios = [after / before for after, before in zip(ours, without, strict=True)]
            found = statistics.median(ratios)
            verdicts.append(found <= AT_MOST)
            medians = f"{statistics.median(without):.0f} us | {statistics.median(ours):.0f} us"
            print(f"| {rate:,} | {name} | {medians} | x{found:.2f} | x{min(ratios):.2f} to x{max(ratios):.2f} |")
    print(f"\n    {'pass' if all(verdicts) else 'miss'}  no stock call slower than x{AT_MOST} beside our client, in the medians")


if __name__ == "__main__":
    main()
