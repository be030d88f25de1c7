"""What is lost when a replica is: its share, and nothing after."""

import host
from exits import Exits
from load import Load
from release import Release, until
from stock import Stock
from test_moving import nothing_happened


def test_a_pod_that_is_deleted_by_force_takes_its_share_and_no_more(release):
    with Load(release, rate=500, keys=10_000) as load:
        pod = release.pods()[0]["metadata"]["name"]
        release.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
        until("others know", lambda: release.metrics("larder_members_lost_total")["larder_members_lost_total"] > 0, 30)
        release.settles(3)
        report = load.end()
    print({name: report[name] for name in ("lost", "stale", "failed", "errors", "longest_gap_ms")})
    # One of three replicas, and what was not settled after the load's beginning: half is far from that.
    assert report["lost"] <= 5_000 and report["stale"] == 0 and report["corrupt"] == 0, report
    with Load(release, rate=500, keys=10_000) as load:
        report = load.end()
    nothing_happened(report)


def test_a_process_that_is_killed_takes_its_share_and_comes_back_empty(release):
    with Load(release, rate=500, keys=10_000) as owners, Stock(release, rate=500) as stock:
        host.kill(killed := release.pods()[0])
        again = lambda: release.json("pod", killed["metadata"]["name"])["status"]["containerStatuses"][0]["restartCount"] == 1  # noqa: E731
        until("its container starts again", again, 60)
        release.settles(3)
        stock.goes_on(5)
        reports = owners.end(), stock.end()
    for report in reports:
        print({name: report[name] for name in ("lost", "stale", "failed", "errors", "longest_gap_ms", "p99_us", "max_us")})
    for report in reports:
        # Its share, and of the calls of one second one in 200.
        assert report["lost"] <= 5_000 and report["failed"] <= 500 / 200, report
        assert report["stale"] == 0 and report["corrupt"] == 0, report
    with Load(release, rate=500, keys=10_000) as load:
        nothing_happened(load.end())


def test_three_times_the_memory_is_evicted_and_never_killed(namespace):
    release = Release(namespace)
    # 3 x 192 MiB for entries; 450,000 of 4 KiB are three times as much.
    release.install("--set", "resources.requests.cpu=50m,resources.requests.memory=256Mi,resources.limits.memory=256Mi")
    fill = Load(release, "--duration", "5s", rate=2000, keys=450_000, value_size="4KiB")
    release.kubectl("apply", "-f", "-", input=fill.manifest)
    until("it is stored", lambda: release.json("pod", fill.name)["status"]["phase"] == "Succeeded", 240)
    with Exits(release) as exits:
        release.scale(4)
        release.scale(2)
        exits.ended_well(2)
    sums = release.metrics("larder_store_evicted_total", "larder_store_memory_bytes", "larder_store_capacity_bytes")
    assert sums["larder_store_evicted_total"] > 100_000
    assert sums["larder_store_memory_bytes"] <= sums["larder_store_capacity_bytes"]
    for pod in release.pods():
        [status] = pod["status"]["containerStatuses"]
        assert status["restartCount"] == 0, status
