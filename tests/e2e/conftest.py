"""Namespaces, in which nothing but what is restricted may run, and releases in them."""

import uuid

import pytest

from release import SMALL, Release, run


def make_namespace():
    name = f"larder-e2e-{uuid.uuid4().hex[:8]}"
    run("kubectl", "create", "namespace", name)
    run("kubectl", "label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    return name


@pytest.fixture
def namespace():
    name = make_namespace()
    yield name
    run("kubectl", "delete", "namespace", name, "--wait=false")


@pytest.fixture
def release(namespace):
    release = Release(namespace)
    release.install(*SMALL)
    return release
