"""What the replicas lean on goes away for a minute: the API server, DNS, the collector of traces. Calls go on."""

import json
from contextlib import contextmanager

import grpc
import host
from larder.v1 import cache_pb2, cache_pb2_grpc
from load import Load
from release import run, until
from stock import Stock
from test_moving import nothing_happened

from support.replica import bearer

# Seconds that the API server is away.
AWAY = 60


def test_calls_go_on_while_the_api_server_is_away_and_who_starts_then_waits_for_it(release):
    killed, *others = release.pods()
    targets = [f"{pod['status']['podIP']}:7070" for pod in others]
    first, token = host.process(killed), release.token
    with Stock(release, rate=500) as stock, host.api_server_standing_still():
        stock.goes_on(AWAY)
        nothing_happened(stock.end())
        with Stock.at(targets, token, rate=200, keys=3000) as stock:
            host.kill(killed)
            until("its container starts again", lambda: host.process(killed) not in (None, first), 60)
            status, waiting = until("it says what it waits for", lambda: (page := host.admin(killed, "readyz"))[0] and page, 20)
            assert status == 503 and "members" in waiting, waiting
            its_answer_is_to_come_again(killed, token)
            report = stock.end()
            its_share_is_lost_and_no_more(report, 3000)
        with Stock.at(targets, token, rate=200, keys=3000) as stock:
            stock.goes_on(5)
            nothing_happened(stock.end())
    until("it serves", lambda: host.admin(killed, "readyz")[0] == 200, 10)
    release.settles(3)
    with Load(release, rate=500, keys=10_000) as load:
        nothing_happened(load.end())


def its_answer_is_to_come_again(pod, token):
    with grpc.insecure_channel(f"{pod['status']['podIP']}:7070") as channel:
        try:
            cache_pb2_grpc.CacheStub(channel).Get(cache_pb2.GetRequest(key="any"), metadata=bearer(token), timeout=5)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error
            pushback = {entry.key: entry.value for entry in error.trailing_metadata()}.get("grpc-retry-pushback-ms")
            assert pushback is not None and int(pushback) >= 0, error
        else:
            raise AssertionError("a replica that does not know who the members are has answered")


def its_share_is_lost_and_no_more(report, keys):
    """One of three replicas; half is far from a third. A call may fail that was under way there."""
    print(report)
    assert report["lost"] <= keys // 2 and report["stale"] == 0, report


def test_without_dns_calls_go_on_and_replicas_are_replaced(release):
    with Load(release) as owners, Stock(release) as stock, dns_away():
        release.restart()
        nothing_happened(owners.end(), stock.end())


@contextmanager
def dns_away():
    host.disposable()
    kubectl = ["kubectl", "-n", "kube-system"]
    label = {"k8s-app": "kube-dns"}
    every = json.loads(run(*kubectl, "get", "deployments", "-o", "json"))["items"]
    [name] = [one["metadata"]["name"] for one in every if label.items() <= one["spec"]["selector"]["matchLabels"].items()]
    [replicas] = [one["spec"]["replicas"] for one in every if one["metadata"]["name"] == name]
    try:
        run(*kubectl, "scale", f"deployment/{name}", "--replicas=0")
        until("there is no DNS any more", lambda: not run(*kubectl, "get", "pods", "-l", "k8s-app=kube-dns", "-o", "name"), 60)
        yield
    finally:
        run(*kubectl, "scale", f"deployment/{name}", f"--replicas={replicas}")
        run(*kubectl, "rollout", "status", f"deployment/{name}", "--timeout=60s")
