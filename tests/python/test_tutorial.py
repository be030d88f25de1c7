"""The tutorial's API, unchanged: stubs from its own file alone."""

import base64

import grpc
import pytest
import rpc_pb2
import rpc_pb2_grpc
from larder.v1 import cache_pb2, cache_pb2_grpc

from support.accounts import ALICE, BOB, THREE_KEYS, account, token
from support.replica import bearer, channel
from support.waiting import until

FIVE_KEYS = token("five_keys")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A replica of its own: Dump there lists what all callers stored."""
    from support import accounts
    from support.replica import Replica

    everyone = [*accounts.EVERYONE, account("five-keys", FIVE_KEYS, max_cache_keys=5)]
    with Replica(tmp_path_factory.mktemp("tutorial"), "--tutorial-api", everyone=everyone) as replica:
        yield replica


@pytest.fixture
def opened(served):
    with channel(served) as opened:
        yield opened


@pytest.fixture
def cache(opened):
    return rpc_pb2_grpc.CacheStub(opened)


def failure(call, request, **options):
    """Code, the decoded trailer and the sentence of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        answer = call(request, **options)
        list(answer) if hasattr(answer, "__iter__") else None
    error = caught.value
    text = dict(error.trailing_metadata())["rpc-error"]
    assert isinstance(text, str)
    told = rpc_pb2.Error.FromString(base64.b64decode(text, validate=True))
    assert told.code == error.code().value[0]
    assert told.messsage == error.details() != ""
    return error.code().name, told


def test_store_with_a_token_and_get_without(cache, prefix):
    cache.Store(rpc_pb2.StoreReq(key=prefix, val=b"value", account_token=ALICE))
    assert cache.Get(rpc_pb2.GetReq(key=prefix)).val == b"value"


def test_all_callers_share_one_key_space(cache, prefix):
    cache.Store(rpc_pb2.StoreReq(key=prefix, val=b"alice's", account_token=ALICE))
    cache.Store(rpc_pb2.StoreReq(key=prefix, val=b"bob's", account_token=BOB))
    cache.Store(rpc_pb2.StoreReq(key=prefix + "2", val=b"nobody's"))
    assert cache.Get(rpc_pb2.GetReq(key=prefix)).val == b"bob's"
    assert cache.Get(rpc_pb2.GetReq(key=prefix + "2")).val == b"nobody's"


def test_it_never_meets_the_keys_of_larder_v1(opened, cache, prefix):
    cache.Store(rpc_pb2.StoreReq(key=prefix, val=b"shared", account_token=ALICE))
    larder = cache_pb2_grpc.CacheStub(opened)
    error = larder.Get.future(cache_pb2.GetRequest(key=prefix), metadata=bearer(ALICE)).exception()
    assert error.code() == grpc.StatusCode.NOT_FOUND
    larder.Store(cache_pb2.StoreRequest(key=prefix, val=b"private"), metadata=bearer(ALICE))
    assert cache.Get(rpc_pb2.GetReq(key=prefix)).val == b"shared"


def test_dump_streams_the_shared_space(cache, prefix):
    stored = {f"{prefix}{n}": b"%d" % n for n in range(200)}
    for key, val in stored.items():
        cache.Store(rpc_pb2.StoreReq(key=key, val=val))
    items = [(item.key, item.val) for item in cache.Dump(rpc_pb2.DumpReq())]
    assert len(items) == len(dict(items))
    assert {key: val for key, val in items if key.startswith(prefix)} == stored


def test_a_missing_key(cache, prefix):
    code, told = failure(cache.Get, rpc_pb2.GetReq(key=prefix))
    assert (code, told.temporary, told.userErrorCode) == ("NOT_FOUND", False, 301)


def test_an_empty_key(cache):
    code, told = failure(cache.Store, rpc_pb2.StoreReq(val=b"v"))
    assert (code, told.temporary, told.userErrorCode) == ("INVALID_ARGUMENT", False, 101)


def test_an_unknown_token(cache, prefix):
    code, told = failure(cache.Store, rpc_pb2.StoreReq(key=prefix, account_token=token("stranger")))
    assert (code, told.temporary, told.userErrorCode) == ("UNAUTHENTICATED", False, 202)
    assert token("stranger") not in told.messsage
    assert failure(cache.Get, rpc_pb2.GetReq(key=prefix))[0] == "NOT_FOUND"


def test_a_token_says_whose_quota_a_new_key_counts_against(cache, prefix):
    for n in range(5):
        cache.Store(rpc_pb2.StoreReq(key=f"{prefix}{n}", val=b"v", account_token=FIVE_KEYS))
    code, told = failure(cache.Store, rpc_pb2.StoreReq(key=f"{prefix}5", account_token=FIVE_KEYS))
    assert (code, told.temporary, told.userErrorCode) == ("FAILED_PRECONDITION", False, 306)
    # Overwriting is free, also for another; and the key stays charged to who created it.
    cache.Store(rpc_pb2.StoreReq(key=f"{prefix}0", val=b"other", account_token=FIVE_KEYS))
    cache.Store(rpc_pb2.StoreReq(key=f"{prefix}0", val=b"another", account_token=ALICE))
    assert failure(cache.Store, rpc_pb2.StoreReq(key=f"{prefix}5", account_token=FIVE_KEYS))[0] == "FAILED_PRECONDITION"
    # Others have room.
    cache.Store(rpc_pb2.StoreReq(key=f"{prefix}5", account_token=ALICE))
    cache.Store(rpc_pb2.StoreReq(key=f"{prefix}6"))


def test_a_dry_run_changes_nothing(cache, prefix):
    cache.Store(rpc_pb2.StoreReq(key=prefix, val=b"v"), metadata=[("dry-run", "1")])
    assert failure(cache.Get, rpc_pb2.GetReq(key=prefix))[0] == "NOT_FOUND"


def test_the_rate_limit_says_that_it_is_temporary(start):
    replica = start("--tutorial-api", "--requests-per-second", "1", "--burst", "1")
    with channel(replica) as opened:
        cache = rpc_pb2_grpc.CacheStub(opened)

        def limited():
            try:
                cache.Store(rpc_pb2.StoreReq(key="k"))
            except grpc.RpcError as error:
                return error

        error = until("the limit is met", limited)
    trailers = dict(error.trailing_metadata())
    told = rpc_pb2.Error.FromString(base64.b64decode(trailers["rpc-error"], validate=True))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert told.temporary and told.code == 8 and 0 < int(trailers["grpc-retry-pushback-ms"]) <= 1000


def test_accounts_answers_the_limits_of_a_token(opened):
    accounts = rpc_pb2_grpc.AccountsStub(opened)
    assert accounts.GetByToken(rpc_pb2.GetByTokenReq(token=THREE_KEYS)).account.max_cache_keys == 3
    code, told = failure(accounts.GetByToken, rpc_pb2.GetByTokenReq(token=token("stranger")))
    assert (code, told.userErrorCode) == ("UNAUTHENTICATED", 202)


def test_without_the_switch_it_is_not_there(start):
    with channel(start()) as opened:
        with pytest.raises(grpc.RpcError) as caught:
            rpc_pb2_grpc.CacheStub(opened).Get(rpc_pb2.GetReq(key="k"))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
