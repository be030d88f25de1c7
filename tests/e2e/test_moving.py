"""Replicas come, are replaced and go under load, and no caller notices: 0 failed, 0 lost, 0 stale, every pod exits by itself."""

import json
import os

from exits import Exits
from load import Load
from pairs import Pairs
from release import until
from stock import Stock

ROLLOUTS = int(os.environ.get("LARDER_E2E_ROLLOUTS", "10"))


def nothing_happened(*reports):
    broken = []
    for report in reports:
        counts = {name: report[name] for name in ("failed", "lost", "stale", "corrupt", "unread")}
        shown = {name: report[name] for name in ("verdict", "achieved_percent", "p50_us", "p99_us", "max_us", "longest_gap_ms", "errors")}
        print(json.dumps(counts | shown))
        if report["verdict"] == "void" or report["errors"] or any(counts.values()):
            broken.append(report)
    assert not broken


def test_scaling_3_to_5_to_2_under_load_shows_to_no_caller(release):
    pairs = Pairs()
    with Exits(release) as exits, Load(release) as owners, Stock(release, keys=50_000) as stock:
        for replicas in (5, 2, 3):
            with pairs.beside(stock):
                release.scale(replicas)
        reports = owners.end(), stock.end()
        exits.ended_well(3)
        nothing_happened(*reports)
        pairs.hold(reports[0])


def test_rollouts_under_load_show_to_no_caller(release):
    pairs = Pairs()
    with Exits(release) as exits, Load(release) as owners, Stock(release, keys=50_000) as stock:
        for _ in range(ROLLOUTS):
            with pairs.beside(stock):
                release.restart()
        reports = owners.end(), stock.end()
        exits.ended_well(3 * ROLLOUTS)
        nothing_happened(*reports)
        pairs.hold(reports[0])


def test_a_drain_evicts_no_more_than_the_budget_allows_and_loses_nothing(release):
    with Exits(release) as exits, Load(release) as load:
        for pod in [pod["metadata"]["name"] for pod in release.pods()]:
            eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": release.namespace}}
            path = f"/api/v1/namespaces/{release.namespace}/pods/{pod}/eviction"
            create = lambda: "Success" in release.kubectl(  # noqa: E731
                "create", "--raw", path, "-f", "-", input=json.dumps(eviction), check=False
            )
            until(f"{pod} may be evicted", create, 60)
        release.settles(3)
        report = load.end()
        exits.ended_well(3)
        nothing_happened(report)
