"""One call of a stock client, read back from a real Jaeger."""

import pytest
from larder.v1 import cache_pb2, cache_pb2_grpc

from support import jaeger
from support.accounts import ALICE
from support.cluster import Cluster
from support.jaeger import Jaeger
from support.replica import bearer, channel

CALLER = "b7ad6b7169203331"


@pytest.mark.skipif(jaeger.BIN is None, reason="there is no `jaeger` on the path; name one with JAEGER_BIN")
def test_a_trace_goes_from_the_caller_over_the_replica_that_took_the_call_to_the_owner(tmp_path):
    with Jaeger(tmp_path) as collector:
        flags = ["--otlp-traces-endpoint", collector.endpoint, "--span-delay", "100ms"]
        with Cluster(tmp_path, 3, *flags) as cluster, channel(cluster.replicas[0]) as opened:
            stub = cache_pb2_grpc.CacheStub(opened)
            # One key in three is the replica's own: this many are not all its own.
            traces = [f"{number + 1:032x}" for number in range(12)]
            for number, trace in enumerate(traces):
                traced = [("traceparent", f"00-{trace}-{CALLER}-01")]
                stub.Store(cache_pb2.StoreRequest(key=f"key {number}", val=b"secret"), metadata=bearer(ALICE) + traced)
            every = [collector.spans(trace, 1) for trace in traces]
            forwarded = [spans[0]["traceID"] for spans in every if spans[0]["tags"].get("larder.result") == "forwarded"]
            taken, way, owned = collector.spans(forwarded[0], 3)
    assert [span["operationName"] for span in (taken, way, owned)] == [
        "larder.v1.Cache/Store",
        "larder.peer.v1.Peer/Forward",
        "larder.v1.Cache/Store",
    ]
    assert [span["parents"] for span in (taken, way, owned)] == [[CALLER], [taken["spanID"]], [way["spanID"]]]
    replicas = [span["process"]["service.instance.id"] for span in (taken, way, owned)]
    assert replicas[:2] == ["replica-0"] * 2 and replicas[2] in ("replica-1", "replica-2")
    assert {span["service"] for span in (taken, way, owned)} == {"larder"}
    for span, hop in ((taken, 0), (owned, 1)):
        tags = span["tags"]
        assert tags["larder.hop"] == hop
        assert (tags["larder.account.id"], tags["rpc.response.status_code"]) == ("alice", "OK")
        assert tags["larder.owner"] == way["tags"]["larder.owner"]
        assert tags["larder.topology.digest"] == way["tags"]["larder.topology.digest"]
    assert "secret" not in str((taken, way, owned)) and ALICE not in str((taken, way, owned))
