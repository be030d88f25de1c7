"""The contract at each of three replicas, as stock clients see it that know nothing of the ring: the tests of one replica,
with a channel to each in turn. Two thirds of the keys are another's."""

import grpc
import pytest
from larder.v1 import cache_pb2, cache_pb2_grpc

from support.accounts import ALICE, THREE_KEYS
from support.cluster import Cluster
from support.failures import expect, refused
from support.replica import bearer, channel
from test_dry_run import *  # noqa: F403
from test_errors import *  # noqa: F403
from test_methods import *  # noqa: F403
from test_pipeline import *  # noqa: F403


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("cluster"), 3, "--capacity", "256MiB") as cluster:
        yield cluster
        for replica in cluster.replicas:
            assert replica.process.poll() is None, f"a replica died:\n{replica.log()[-4000:]}"


@pytest.fixture(params=range(3), ids=lambda number: f"replica-{number}")
def replica(cluster, request):
    """Of the imported tests: one of the three."""
    return cluster.replicas[request.param]


@pytest.fixture
def each(cluster):
    """A stub for each replica."""
    channels = [channel(replica) for replica in cluster.replicas]
    yield [cache_pb2_grpc.CacheStub(opened) for opened in channels]
    for opened in channels:
        opened.close()


def test_a_key_is_the_same_wherever_it_is_asked_for(each, prefix):
    for number in range(30):
        request = cache_pb2.StoreRequest(key=f"{prefix}{number}", val=b"%d" % number)
        each[number % 3].Store(request, metadata=bearer(ALICE))
    for stub in each:
        for number in range(30):
            got = stub.Get(cache_pb2.GetRequest(key=f"{prefix}{number}"), metadata=bearer(ALICE))
            assert got.val == b"%d" % number
        dumped = [item.key for item in stub.Dump(cache_pb2.DumpRequest(prefix=prefix), metadata=bearer(ALICE))]
        assert sorted(dumped) == sorted(f"{prefix}{number}" for number in range(30))


@pytest.mark.parametrize("authority", [None, "larder"])
def test_a_channel_over_several_addresses_works_with_an_authority_as_the_readme_says(cluster, authority):
    options = [("grpc.lb_policy_name", "round_robin"), ("grpc.default_authority", authority)]
    target = "ipv4:" + ",".join(replica.addresses["grpc"] for replica in cluster.replicas)
    with grpc.insecure_channel(target, options=[option for option in options if option[1]]) as opened:
        stub = cache_pb2_grpc.CacheStub(opened)
        if authority:
            for _ in range(9):
                stub.Stats(cache_pb2.StatsRequest(), metadata=bearer(ALICE), wait_for_ready=True, timeout=10)
        else:
            # If this passes one day, the README and docs/operations.md say too much.
            with pytest.raises(grpc.RpcError, match="PROTOCOL_ERROR|RST_STREAM"):
                stub.Stats(cache_pb2.StatsRequest(), metadata=bearer(ALICE), timeout=10)


def test_a_dump_goes_on_at_another_replica(each, prefix):
    for number in range(90):
        each[0].Store(cache_pb2.StoreRequest(key=f"{prefix}{number}", val=b"v"), metadata=bearer(ALICE))
    keys, cursor = [], b""
    for turn in range(9):
        request = cache_pb2.DumpRequest(prefix=prefix, cursor=cursor)
        stream = each[turn % 3].Dump(request, metadata=bearer(ALICE))
        for item in (next(stream) for _ in range(10)):
            keys.append(item.key)
            cursor = item.cursor
        stream.cancel()
    assert len(set(keys)) == len(keys) == 90


def test_a_quota_holds_over_all_of_them(each, prefix):
    list(each[0].Clear(cache_pb2.ClearRequest(), metadata=bearer(THREE_KEYS)))
    for number, stub in enumerate(each):
        stub.Store(cache_pb2.StoreRequest(key=f"{prefix}{number}", val=b"v"), metadata=bearer(THREE_KEYS))
    for number, stub in enumerate(each):
        request = cache_pb2.StoreRequest(key=f"{prefix}more{number}", val=b"v")
        expect(refused(stub.Store, request, metadata=bearer(THREE_KEYS)), "FAILED_PRECONDITION", "QUOTA_KEYS")
        assert stub.Stats(cache_pb2.StatsRequest(), metadata=bearer(THREE_KEYS)).keys == 3
