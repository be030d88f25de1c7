"""`grpc.health.v1`: on the port of the clients and, in plain text without a token, on that of the probes."""

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.waiting import Stopwatch

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def stub(target):
    return health_pb2_grpc.HealthStub(grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]))


@pytest.fixture(params=["target", "health_target"])
def health(request, replica):
    return stub(getattr(replica, request.param))


@pytest.mark.parametrize("service", ["", "larder.v1.Cache", "live"])
def test_a_ready_replica_serves(health, service):
    assert health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status == SERVING


def test_an_unknown_service_is_not_found(health):
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="larder.v1.Nonsense"), timeout=5)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_watch_tells_the_state_and_then_the_end(start):
    replica = start("--drain-delay", "1s")
    watches = [stub(target).Watch(health_pb2.HealthCheckRequest()) for target in (replica.target, replica.health_target)]
    assert [next(watch).status for watch in watches] == [SERVING, SERVING]
    replica.terminate()
    with Stopwatch() as watch:
        assert [next(watch).status for watch in watches] == [NOT_SERVING, NOT_SERVING]
    assert watch.seconds < 0.9, "the news comes before the end, not with it"
    live = stub(replica.health_target).Check(health_pb2.HealthCheckRequest(service="live"), timeout=5)
    assert live.status == SERVING, "what drains is not to be killed"
    assert replica.wait(10) == 0


def test_the_admin_port_tells_the_same(replica):
    import urllib.request

    for path in ["livez", "readyz"]:
        with urllib.request.urlopen(f"http://{replica.addresses['admin']}/{path}", timeout=5) as answer:
            assert answer.status == 200
