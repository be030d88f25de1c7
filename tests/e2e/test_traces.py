"""One request followed in Jaeger, and Jaeger gone."""

import grpc
import host
import pytest
from jaegers import ENDPOINT, Jaeger
from larder.v1 import cache_pb2, cache_pb2_grpc
from load import Load
from release import SMALL, Release, until
from stock import Stock
from test_moving import nothing_happened

from support.replica import bearer

CALLER = "b7ad6b7169203331"


@pytest.fixture
def jaeger(namespace):
    return Jaeger(namespace)


@pytest.fixture
def traced(jaeger):
    release = Release(jaeger.namespace)
    release.install(*SMALL, "--set", f"telemetry.otlp.endpoint={ENDPOINT}")
    return release


def test_a_stock_clients_call_is_followed_from_it_over_two_replicas(traced, jaeger):
    address = host.reachable(traced.json("service", traced.fullname)["spec"]["clusterIP"])
    # Two keys in three are another replica's: of so many, some are.
    ids = [f"{number + 1:032x}" for number in range(12)]
    with grpc.insecure_channel(address) as channel:
        stub = cache_pb2_grpc.CacheStub(channel)
        for number, trace in enumerate(ids):
            its = [*bearer(traced.token), ("traceparent", f"00-{trace}-{CALLER}-01")]
            stub.Store(cache_pb2.StoreRequest(key=f"key {number}", val=b"secret"), metadata=its, timeout=5)
    every = [jaeger.spans(trace, 1) for trace in ids]
    forwarded = [spans[0]["traceID"] for spans in every if spans[0]["tags"].get("larder.result") == "forwarded"]
    taken, way, owned = jaeger.spans(forwarded[0], 3)
    names = [span["operationName"] for span in (taken, way, owned)]
    assert names == ["larder.v1.Cache/Store", "larder.peer.v1.Peer/Forward", "larder.v1.Cache/Store"]
    assert [span["parents"] for span in (taken, way, owned)] == [[CALLER], [taken["spanID"]], [way["spanID"]]]
    replicas = {pod["metadata"]["uid"] for pod in traced.pods()}
    seen = [span["process"]["service.instance.id"] for span in (taken, way, owned)]
    assert set(seen) <= replicas and seen[0] == seen[1] != seen[2], seen
    for span, hop in ((taken, 0), (owned, 1)):
        tags = span["tags"]
        assert (tags["larder.hop"], tags["larder.account.id"], tags["rpc.response.status_code"]) == (hop, "default", "OK")
        assert tags["larder.owner"] == way["tags"]["larder.owner"]
        assert tags["larder.topology.digest"] == way["tags"]["larder.topology.digest"]
    assert "secret" not in str((taken, way, owned)) and traced.token not in str((taken, way, owned))


def test_without_jaeger_calls_go_on_and_spans_are_counted_as_lost(traced, jaeger):
    lost = ('larder_spans_total{outcome="dropped"}', 'larder_spans_total{outcome="failed"}')
    with Load(traced) as owners, Stock(traced) as stock:
        jaeger.scale(0)
        until("spans are counted as lost", lambda: sum(traced.metrics(*lost).values()) > 0, 60)
        stock.goes_on(10)
        nothing_happened(owners.end(), stock.end())
    jaeger.scale(1)
    exported = lambda: traced.metrics('larder_spans_total{outcome="exported"}')  # noqa: E731
    before = exported()
    traced.larder("store", "seen", "again")
    until("spans go out again", lambda: exported() != before, 60)
