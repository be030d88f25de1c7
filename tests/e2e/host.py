"""What only a machine may do that is a node of the cluster: reach its addresses, find the processes of its pods, and stop its parts."""

import os
import signal
import socket
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from release import until


def lacking(what):
    """Skips the test; in CI that is a failure."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


def disposable():
    """Parts of a cluster are stopped only where that was said to be welcome."""
    if os.environ.get("LARDER_E2E_DISPOSABLE") != "1":
        lacking("LARDER_E2E_DISPOSABLE is not 1: nobody said that this cluster's DNS and API server may be stopped for a minute")


def reachable(address, port=7070):
    """An address of the cluster, if this machine gets there. A Service's is there a moment after its pods."""

    def answers():
        try:
            socket.create_connection((address, port), timeout=1).close()
        except OSError:
            return False
        return True

    try:
        until(f"{address}:{port} is reached from this machine", answers, 10)
    except AssertionError as error:
        lacking(f"{error}: it is no node of the cluster")
    return f"{address}:{port}"


def processes(name):
    """Those of this machine with this name, by their ids, with the cgroups that they are in."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "comm").read_text().strip() == name[:15]:
                found[int(folder.name)] = (folder / "cgroup").read_text()
        except OSError:
            continue  # It has ended meanwhile.
    return found


def process(pod):
    """The id of a replica's process, or none: it has ended, and the next has not begun."""
    uid = pod["metadata"]["uid"]
    # systemd writes the uid with other dashes.
    found = [pid for pid, cgroups in processes("larder").items() if uid in cgroups or uid.replace("-", "_") in cgroups]
    return found[0] if found else None


def kill(pod):
    """SIGKILL to a replica's process; its id."""
    pid = process(pod)
    if pid is None:
        lacking(f"the process of {pod['metadata']['name']} is not on this machine: it is no node of the cluster")
    os.kill(pid, signal.SIGKILL)
    return pid


@contextmanager
def api_server_standing_still():
    """The harshest way to be away: connections stay, and nobody answers."""
    disposable()
    found = list(processes("kube-apiserver"))
    if len(found) != 1:
        lacking(f"{len(found)} processes of this machine are kube-apiserver, and one is needed")
    os.kill(found[0], signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(found[0], signal.SIGCONT)


def admin(pod, path):
    """Status and page of a pod's admin port, without the API server; (0, '') while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://{pod['status']['podIP']}:7073/{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""
