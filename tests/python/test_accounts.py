"""Where accounts come from: a file that is reloaded, or a stock gRPC server of either API, asked on the caller's behalf."""

import contextlib
import threading
from concurrent import futures

import grpc
import pytest
import rpc_pb2
import rpc_pb2_grpc
from larder.v1 import accounts_pb2, accounts_pb2_grpc, cache_pb2, cache_pb2_grpc

from support import accounts
from support.accounts import ALICE, BOB, account, token
from support.certificates import Mounted
from support.failures import expect, refused
from support.replica import bearer, channel
from support.waiting import until

STATS = cache_pb2.StatsRequest()


def code(cache, key):
    error = cache.Stats.future(STATS, metadata=bearer(key), timeout=5).exception()
    return "OK" if error is None else error.code().name


# The file


def test_a_changed_file_is_reloaded(start):
    replica = start()
    added = token("added")
    with channel(replica) as opened:
        cache = cache_pb2_grpc.CacheStub(opened)
        assert (code(cache, added), code(cache, BOB)) == ("UNAUTHENTICATED", "OK")
        accounts.write(replica.accounts_file, [account("alice", ALICE), account("added", added)])
        until("the new token is known", lambda: code(cache, added) == "OK")
        assert (code(cache, BOB), code(cache, ALICE)) == ("UNAUTHENTICATED", "OK")


def test_a_broken_file_leaves_the_old_accounts(start):
    replica = start()
    with channel(replica) as opened:
        cache = cache_pb2_grpc.CacheStub(opened)
        replica.accounts_file.write_text("{")
        until("the log says so", lambda: any("accounts.json" in str(line) for line in replica.complaints()))
        assert code(cache, ALICE) == "OK"


def test_a_token_is_rotated_without_a_failed_call(start):
    """Both are in the file for a while, as `docs/accounts.md` says."""
    replica = start()
    new = token("alice_new")
    with channel(replica) as opened:
        cache = cache_pb2_grpc.CacheStub(opened)
        cache.Store(cache_pb2.StoreRequest(key="kept", val=b"v"), metadata=bearer(ALICE))
        codes, over = set(), threading.Event()

        def go_on():
            key = ALICE
            while not over.is_set():
                codes.add(code(cache, key))
                key = new if rotated.is_set() else ALICE

        rotated = threading.Event()
        user = threading.Thread(target=go_on)
        user.start()
        accounts.write(replica.accounts_file, [account("alice", ALICE, new)])
        until("the new token is known", lambda: code(cache, new) == "OK")
        rotated.set()
        until("it is used", lambda: code(cache, new) == "OK")
        over.set()
        user.join()
        assert codes == {"OK"}
        accounts.write(replica.accounts_file, [account("alice", new)])
        until("the old one is gone", lambda: code(cache, ALICE) == "UNAUTHENTICATED")
        assert cache.Get(cache_pb2.GetRequest(key="kept"), metadata=bearer(new)).val == b"v"


def test_a_mounted_secret_is_reloaded(start, tmp_path):
    def content(*everyone):
        file = tmp_path / "made.json"
        accounts.write(file, everyone)
        return file.read_bytes()

    secret = Mounted(tmp_path / "secret", json=content(account("alice", ALICE)))
    replica = start(accounts_flags=["--accounts", secret.root / "json"])
    with channel(replica) as opened:
        cache = cache_pb2_grpc.CacheStub(opened)
        assert code(cache, BOB) == "UNAUTHENTICATED"
        secret.swap(json=content(account("alice", ALICE), account("bob", BOB)))
        until("the new account is known", lambda: code(cache, BOB) == "OK")


# A service


class Service:
    """Both APIs, as somebody else would write them. Counts what it is asked and keeps the metadata."""

    def __init__(self, which):
        self.calls, self.metadata, self.deadlines, self.down = [], [], [], False
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        if which == "larder":
            accounts_pb2_grpc.add_AccountsServicer_to_server(_Larder(self), self.server)
        else:
            rpc_pb2_grpc.add_AccountsServicer_to_server(_Tutorial(self), self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def asked(self, key, context):
        self.calls.append(key)
        self.metadata.append(dict(context.invocation_metadata()))
        self.deadlines.append(context.time_remaining())
        if self.down:
            context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        if key not in (ALICE, BOB):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown")

    def stop(self):
        self.server.stop(None).wait()


class _Larder(accounts_pb2_grpc.AccountsServicer):
    def __init__(self, service):
        self.service = service

    def GetByToken(self, request, context):
        self.service.asked(request.token, context)
        id = "alice" if request.token == ALICE else "bob"
        return accounts_pb2.GetByTokenResponse(account=accounts_pb2.Account(id=id, max_cache_keys=7))


class _Tutorial(rpc_pb2_grpc.AccountsServicer):
    def __init__(self, service):
        self.service = service

    def GetByToken(self, request, context):
        self.service.asked(request.token, context)
        return rpc_pb2.GetByTokenResp(account=rpc_pb2.Account(max_cache_keys=7))


@contextlib.contextmanager
def beside(which, start, *flags):
    """A service and a replica that asks it."""
    service = Service(which)
    try:
        replica = start(*flags, accounts_flags=["--accounts-url", f"http://127.0.0.1:{service.port}"])
        with channel(replica) as opened:
            yield service, cache_pb2_grpc.CacheStub(opened)
    finally:
        service.stop()


@pytest.mark.parametrize("which", ["larder", "tutorial"])
def test_a_stock_service_is_asked_once_and_remembered(start, which):
    with beside(which, start) as (service, cache):
        stats = cache.Stats(STATS, metadata=bearer(ALICE))
        assert stats.max_cache_keys == 7
        # A service that knows no ids: `t-` and 16 digits of the token's hash.
        assert stats.account_id == "alice" if which == "larder" else stats.account_id.startswith("t-")
        for _ in range(20):
            assert code(cache, ALICE) == "OK"
        assert service.calls == [ALICE]
        expect(refused(cache.Stats, STATS, metadata=bearer(token("stranger"))), "UNAUTHENTICATED", "TOKEN_UNKNOWN")


def test_the_question_carries_deadline_trace_and_dry_run(start):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with beside("larder", start) as (service, cache):
        metadata = bearer(ALICE, dry_run="1", traceparent=trace, tracestate="a=b")
        cache.Store(cache_pb2.StoreRequest(key="k"), metadata=metadata, timeout=2)
        assert 0 < service.deadlines[0] <= 2
        told = service.metadata[0]
        assert told["dry-run"] == "1" and told["tracestate"] == "a=b"
        assert told["traceparent"].split("-")[1] == trace.split("-")[1]


def test_many_callers_ask_once(start):
    with beside("larder", start) as (service, cache):
        calls = [cache.Stats.future(STATS, metadata=bearer(ALICE), timeout=5) for _ in range(50)]
        assert all(call.exception() is None for call in calls)
        assert len(service.calls) == 1


def test_while_it_is_down_old_answers_serve_and_new_tokens_wait(start):
    with beside("larder", start, "--accounts-ttl", "50ms") as (service, cache):
        assert code(cache, ALICE) == "OK"
        service.stop()
        until("the answer is old", lambda: len(service.calls) >= 1)
        for _ in range(20):
            assert code(cache, ALICE) == "OK"
        failure = refused(cache.Stats, STATS, metadata=bearer(BOB), timeout=5)
        expect(failure, "UNAVAILABLE", "ACCOUNTS_UNAVAILABLE")
        assert failure.error.temporary and failure.pushback > 0
