"""TLS for clients from a Secret: who is let in, who is told why not, and a certificate that is replaced under load."""

import ssl
import subprocess
from functools import partial

import grpc
import host
import pytest
from larder.v1 import cache_pb2, cache_pb2_grpc
from load import Load
from release import SMALL, Release, run, until
from stock import Stock
from test_moving import nothing_happened

from support.certificates import Authority
from support.replica import bearer

SECRET = "larder-e2e-tls"
ON = ["--set", f"tls.clients.enabled=true,tls.clients.secretName={SECRET}"]
# The Service's address is in no certificate, its name is.
NAME = ("grpc.ssl_target_name_override", "larder")
# The kubelet brings a changed Secret within two minutes.
SOON = 150


class Certificates:
    """An authority, and the Secret with what it issues."""

    def __init__(self, namespace, folder):
        self.namespace, self.folder, self.authority = namespace, folder, Authority()

    def issue(self):
        """Replaces the certificate; the new one, as PEM."""
        certificate, key = self.authority.issue("larder")
        files = {"tls.crt": certificate, "tls.key": key, "ca.crt": self.authority.pem}
        for name, content in files.items():
            (self.folder / name).write_bytes(content)
        kubectl = ["kubectl", "-n", self.namespace]
        flags = [f"--from-file={self.folder / name}" for name in files]
        made = run(*kubectl, "create", "secret", "generic", SECRET, *flags, "--dry-run=client", "-o", "yaml")
        run(*kubectl, "apply", "-f", "-", input=made)
        return certificate.decode()

    def connect(self, target, options=()):
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(self.authority.pem), options=[*options, NAME])


@pytest.fixture
def certificates(namespace, tmp_path):
    its = Certificates(namespace, tmp_path)
    its.first = its.issue()
    return its


@pytest.fixture
def encrypted(certificates):
    release = Release(certificates.namespace)
    release.install(*SMALL, *ON)
    return release


def test_a_replaced_certificate_is_shown_to_new_connections_and_no_call_fails(encrypted, certificates):
    address = host.reachable(encrypted.json("service", "larder")["spec"]["clusterIP"]).split(":")[0]
    shown = partial(ssl.get_server_certificate, (address, 7070))
    same = lambda one, other: one.strip() == other.strip()  # noqa: E731
    assert same(shown(), certificates.first)
    with Load(encrypted, tls=SECRET) as owners, Stock(encrypted, connect=certificates.connect) as stock:
        second = certificates.issue()
        taken = lambda: encrypted.metrics("larder_tls_reloads_total")["larder_tls_reloads_total"] == 3  # noqa: E731
        until("every replica has taken the new certificate", taken, SOON)
        assert same(shown(), second)
        # Whoever comes now has the new one, also who is sent away by a replica that ends.
        encrypted.restart()
        nothing_happened(owners.end(), stock.end())


def test_a_client_with_the_ca_is_answered_and_others_are_told_why_not(encrypted, certificates):
    encrypted.helm("test")
    target = host.reachable(encrypted.json("service", "larder")["spec"]["clusterIP"])
    with certificates.connect(target) as channel:
        cache_pb2_grpc.CacheStub(channel).Store(
            cache_pb2.StoreRequest(key="greeting", val=b"hello"), metadata=bearer(encrypted.token), timeout=5
        )
    stranger = Certificates.__new__(Certificates)
    stranger.authority = Authority("another CA")
    for connect, why in ((stranger.connect, "CERTIFICATE_VERIFY_FAILED"), (grpc.insecure_channel, "Socket closed")):
        with connect(target) as channel, pytest.raises(grpc.RpcError) as refused:
            cache_pb2_grpc.CacheStub(channel).Get(cache_pb2.GetRequest(key="greeting"), metadata=bearer(encrypted.token), timeout=5)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE and why in refused.value.details(), refused.value
    words = ["kubectl", "-n", encrypted.namespace, "exec", "deployment/larder", "--", "/larder", "get", "greeting", "--target", "https://larder:7070"]
    told = subprocess.run([*words, "--token", encrypted.token], capture_output=True, text=True, timeout=60)
    assert told.returncode != 0 and "certificate" in told.stderr, told
