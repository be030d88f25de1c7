"""Fixtures: one replica for all tests that leave it as it was, and a factory for those that do not."""

import resource
import uuid

import pytest
from larder.v1 import accounts_pb2_grpc, cache_pb2_grpc

from support.replica import Replica, channel


def pytest_configure(config):
    # Floods open more files than the usual soft limit.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192) if hard > 0 else 8192, hard))


@pytest.fixture(scope="session")
def replica(tmp_path_factory):
    """Serves both surfaces with few limits. It must live through everything that is done to it."""
    replica = Replica(tmp_path_factory.mktemp("replica"), "--tutorial-api", "--capacity", "256MiB")
    with replica:
        yield replica
        assert replica.process.poll() is None, f"the replica died:\n{replica.log()[-4000:]}"


@pytest.fixture
def start(tmp_path):
    """Starts replicas with flags of their own, and ends them after the test."""
    running = []

    def start(*flags, **options):
        folder = tmp_path / f"replica-{len(running)}"
        folder.mkdir()
        running.append(Replica(folder, *flags, **options))
        return running[-1]

    yield start
    for replica in running:
        replica.close()


@pytest.fixture
def stock(replica):
    """A stock channel to the shared replica."""
    with channel(replica) as opened:
        yield opened


@pytest.fixture
def cache(stock):
    return cache_pb2_grpc.CacheStub(stock)


@pytest.fixture
def accounts_service(stock):
    return accounts_pb2_grpc.AccountsStub(stock)


@pytest.fixture
def prefix():
    """Text that no other test's keys begin with."""
    return f"{uuid.uuid4().hex}/"
