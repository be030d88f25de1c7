"""What a person does on an empty cluster, in that order."""

import subprocess
import time

import pytest
from release import CHART, SMALL, TAG, Release, run, until


def test_an_install_with_no_values_is_ready_in_10_s_and_keeps_a_first_key(namespace):
    release = Release(namespace)
    began = time.monotonic()
    release.install()
    release.larder("store", "greeting", "hello, larder")
    assert release.larder("get", "greeting") == "hello, larder"
    took = time.monotonic() - began
    times = release.ready_times()
    print(f"first key after {took:.1f} s; pods ready after {times}")
    assert took <= 60 and len(times) == 3 and max(times.values()) <= 10
    # Each replica answers for the key, whoever owns it.
    release.helm("test")
    release.helm("uninstall", "--wait")
    until("nothing of it is left", lambda: not release.left(), 60)


def test_an_upgrade_and_a_rollback_roll_the_pods_and_keep_key_and_token(release):
    release.larder("store", "kept", "through it all", "--ttl", "1h")
    token, before = release.token, {pod["metadata"]["uid"] for pod in release.pods()}
    release.upgrade("--set-string", "podAnnotations.rolled=1")
    release.settles(3)
    rolled = {pod["metadata"]["uid"] for pod in release.pods()}
    assert not before & rolled and release.token == token
    assert release.larder("get", "kept") == "through it all"
    release.helm("rollback", "1", "--wait")
    release.settles(3)
    assert not rolled & {pod["metadata"]["uid"] for pod in release.pods()} and release.token == token
    assert release.larder("get", "kept") == "through it all"


def test_after_kubectl_scale_an_upgrade_wants_to_hear_which_number_is_meant(release):
    release.scale(2)
    release.helm("upgrade", CHART, "--reset-then-reuse-values", "--set", "replicaCount=2", "--wait")
    release.helm("upgrade", CHART, "--reset-then-reuse-values", "--set", "replicaCount=3", "--wait", *forced())
    release.settles(3)
    # With the autoscaler on, the number stays what it is.
    release.helm("upgrade", CHART, "--reset-then-reuse-values", "--set", "autoscaling.enabled=true,autoscaling.minReplicas=2")
    assert release.json("deployment", "larder")["spec"]["replicas"] == 3


def forced():
    """Helm 4 applies on the server, where `kubectl scale` owns the number."""
    return ["--force-conflicts"] if run("helm", "version", "--short").startswith("v4") else []


def test_the_service_account_may_list_and_watch_endpointslices_and_nothing_else(release):
    who = f"system:serviceaccount:{release.namespace}:larder"
    listed = release.kubectl("auth", "can-i", "--list", "--as", who)
    rows = [line for line in listed.splitlines()[1:] if not line.startswith((" ", "selfsubject"))]
    assert [row.split()[0] for row in rows] == ["endpointslices.discovery.k8s.io"], listed
    assert rows[0].endswith("[list watch]"), rows


def test_two_releases_in_one_namespace_do_not_see_each_other(namespace):
    one, other = Release(namespace, "one"), Release(namespace, "other")
    for release in (one, other):
        release.install(*SMALL)
        release.larder("store", "whose", release.name)
    assert [release.larder("get", "whose") for release in (one, other)] == ["one", "other"]
    for release in (one, other):
        for pod in release.pods():
            page = release.page(pod["metadata"]["name"], "metrics")
            assert 'larder_members{state="present"} 3' in page, release.name
    other.helm("uninstall")
    assert one.larder("get", "whose") == "one"


def test_a_wrong_value_says_what_is_wrong(namespace):
    words = ["helm", "install", "-n", namespace, "larder", str(CHART), "--set", f"image.tag={TAG},replicas=3"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "replicas" in done.stderr
    assert pytest.raises(AssertionError, Release(namespace).json, "deployment", "larder")
