"""TLS 1.2 and 1.3, client certificates, and new certificates without a restart."""

import ssl
import warnings

import grpc
import pytest
from larder.v1 import cache_pb2, cache_pb2_grpc

from support.accounts import ALICE
from support.certificates import Authority, Mounted, write_pair
from support.raw import Raw, frame
from support.replica import bearer
from support.waiting import until

STATS = cache_pb2.StatsRequest()


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def served_by(authority, start, tmp_path):
    """Starts a replica with a certificate of the authority."""

    def served_by(*flags):
        certificate, key = write_pair(tmp_path / "server", authority.issue())
        return start("--tls-cert", certificate, "--tls-key", key, "--tls-reload", "100ms", *flags)

    return served_by


def secure(replica, authority, client=(None, None)):
    credentials = grpc.ssl_channel_credentials(authority.pem, client[1], client[0])
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost")]
    return grpc.secure_channel(replica.target, credentials, options=options)


def outcome(opened):
    """The name of the code that a call ends with."""
    with opened:
        call = cache_pb2_grpc.CacheStub(opened).Stats.future(STATS, metadata=bearer(ALICE), timeout=5)
        error = call.exception()
        return "OK" if error is None else error.code().name


def test_a_client_that_trusts_the_authority_is_served(served_by, authority):
    assert outcome(secure(served_by(), authority)) == "OK"


def test_a_client_that_trusts_another_authority_refuses(served_by):
    assert outcome(secure(served_by(), Authority())) == "UNAVAILABLE"


def test_plain_text_is_refused(served_by):
    replica = served_by()
    assert outcome(grpc.insecure_channel(replica.target)) == "UNAVAILABLE"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_12_and_13(served_by, authority, version):
    replica = served_by()
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.minimum_version = context.maximum_version = version
    with Raw(replica.target, context=context) as raw:
        id = raw.call("/larder.v1.Cache/Stats", frame(b""), authorization=f"Bearer {ALICE}")
        assert raw.finish(id).status == 0


def test_tls_11_is_refused(served_by, authority):
    replica = served_by()
    context = ssl.create_default_context(cadata=authority.pem.decode())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Raw(replica.target, context=context)


# Client certificates


@pytest.fixture
def clients(tmp_path):
    """The authority of the clients, and its file."""
    authority = Authority("clients' CA")
    file = tmp_path / "clients.pem"
    file.write_bytes(authority.pem)
    return authority, file


def test_a_client_certificate_is_required(served_by, authority, clients):
    theirs, file = clients
    replica = served_by("--tls-client-ca", file)
    assert outcome(secure(replica, authority, theirs.issue("client", client=True))) == "OK"
    assert outcome(secure(replica, authority)) == "UNAVAILABLE"
    assert outcome(secure(replica, authority, Authority().issue("client", client=True))) == "UNAVAILABLE"


def test_an_optional_client_certificate_is_checked_if_there_is_one(served_by, authority, clients):
    theirs, file = clients
    replica = served_by("--tls-client-ca", file, "--tls-client-auth", "optional")
    assert outcome(secure(replica, authority, theirs.issue("client", client=True))) == "OK"
    assert outcome(secure(replica, authority)) == "OK"
    assert outcome(secure(replica, authority, Authority().issue("client", client=True))) == "UNAVAILABLE"


# Rotation


def test_new_certificates_are_served_without_a_restart(start, tmp_path):
    old, new = Authority("old CA"), Authority("new CA")
    pair = dict(zip(["crt", "key"], old.issue(), strict=True))
    secret = Mounted(tmp_path / "secret", **pair)
    replica = start("--tls-cert", secret.root / "crt", "--tls-key", secret.root / "key", "--tls-reload", "100ms")
    with secure(replica, old) as before:
        cache = cache_pb2_grpc.CacheStub(before)
        cache.Stats(STATS, metadata=bearer(ALICE))
        secret.swap(**dict(zip(["crt", "key"], new.issue(), strict=True)))
        until("a client of the new authority is served", lambda: outcome(secure(replica, new)) == "OK")
        assert outcome(secure(replica, old)) == "UNAVAILABLE"
        # The old connection lives on.
        cache.Stats(STATS, metadata=bearer(ALICE))


def test_a_broken_new_certificate_leaves_the_old_one(start, tmp_path, authority):
    certificate, key = authority.issue()
    secret = Mounted(tmp_path / "secret", crt=certificate, key=key)
    replica = start("--tls-cert", secret.root / "crt", "--tls-key", secret.root / "key", "--tls-reload", "50ms")
    secret.swap(crt=b"no certificate", key=key)
    until("the log says so", lambda: any("crt" in str(line) for line in replica.complaints()))
    assert outcome(secure(replica, authority)) == "OK"
    # And of a pair, both halves come from one generation.
    secret.swap(crt=authority.issue()[0], key=key)
    assert outcome(secure(replica, authority)) == "OK"


def test_a_new_authority_of_clients_is_taken_without_a_restart(served_by, authority, clients):
    theirs, file = clients
    replica = served_by("--tls-client-ca", file)
    mine = Authority("another CA")
    assert outcome(secure(replica, authority, mine.issue("client", client=True))) == "UNAVAILABLE"
    temporary = file.with_suffix(".new")
    temporary.write_bytes(mine.pem)
    temporary.rename(file)
    until("the new CA counts", lambda: outcome(secure(replica, authority, mine.issue("client", client=True))) == "OK")
    assert outcome(secure(replica, authority, theirs.issue("client", client=True))) == "UNAVAILABLE"
