"""The Kubernetes part of the README, from top to bottom, in its own words; only ports, the namespace and where the nodes find images differ."""

import os
import re
import shutil
import socket
import subprocess
import urllib.request

import pytest
from host import lacking
from jaegers import IMAGE
from release import ROOT, Release, run, until

from support.jaeger import free_ports

LOAD = os.environ.get("LARDER_LOAD_IMAGE", "").split()


def blocks():
    """What is to be typed, in order."""
    part = (ROOT / "README.md").read_text().split("\n## On Kubernetes\n")[1].split("\n## ")[0]
    found = re.findall(r"```sh\n(.*?)```", part, re.DOTALL)
    assert len(found) == 5, found
    return found


class Shell:
    """One shell of the reader's, in a directory that looks like the repository, with a context that is in the namespace."""

    def __init__(self, namespace, folder):
        self.folder, self.ports = folder, dict(zip(("7070", "16686"), free_ports(2), strict=True))
        for name in ("Cargo.toml", "Cargo.lock", "Dockerfile", ".dockerignore", "build.rs", "proto", "src", "LICENSE", "charts"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)
        manifest = (ROOT / "examples" / "jaeger" / "jaeger.yaml").read_text()
        (folder / "examples" / "jaeger").mkdir(parents=True)
        image = re.search(r"image: (\S+)", manifest)[1]
        (folder / "examples" / "jaeger" / "jaeger.yaml").write_text(manifest.replace(image, IMAGE or image))
        config = folder / "kubeconfig"
        config.write_text(run("kubectl", "config", "view", "--raw", "--flatten", "--minify"))
        run("kubectl", f"--kubeconfig={config}", "config", "set-context", "--current", f"--namespace={namespace}")
        self.process = subprocess.Popen(
            ["bash", "-eu"], cwd=folder, env=os.environ | {"KUBECONFIG": str(config)}, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def types(self, block):
        """What is said until the block's last command has ended."""
        for theirs, ours in self.ports.items():
            block = block.replace(f"127.0.0.1:{theirs}", f"127.0.0.1:{ours}").replace(f" {theirs} &", f" {ours}:{theirs} &")
        # From a file: some programs would read the commands after their own.
        (self.folder / "block").write_text(block)
        self.process.stdin.write("source ./block </dev/null; printf '\\nthat was all\\n'\n")
        self.process.stdin.flush()
        said = []
        for line in self.process.stdout:
            if line == "that was all\n":
                return "".join(said)
            said.append(line)
        raise AssertionError(f"the shell ended in\n{block}\n{''.join(said)}")

    def listens(self, theirs):
        """Waits until a `port-forward` in the background does."""

        def connects():
            try:
                socket.create_connection(("127.0.0.1", self.ports[theirs]), timeout=1).close()
            except OSError:
                return False
            return True

        until(f"port {theirs} is forwarded", connects, 20)

    def close(self):
        os.killpg(self.process.pid, 15)
        self.process.wait(timeout=10)


@pytest.fixture
def shell(namespace, tmp_path):
    if shutil.which("docker") is None:
        lacking("docker not found; the README builds the image by it")
    shell = Shell(namespace, tmp_path)
    yield shell
    shell.close()


def test_the_readmes_commands_do_what_it_says(shell, namespace):
    install, first, moving, forward, traces = blocks()
    build, *rest = install.splitlines()
    assert build.startswith("docker build ")
    shell.types(build)
    if LOAD:
        run(*LOAD, build.split(" -t ")[1].split()[0])
    assert "Phase:" in shell.types("\n".join(rest))
    assert "hello, larder" in shell.types(first)
    assert "hello, larder" in shell.types(moving)
    Release(namespace).settles(2)
    the_program(shell, namespace)
    begin, get = forward.splitlines()
    shell.types(begin)
    shell.listens("7070")
    assert "hello, larder" in shell.types(get)
    shell.types(traces)
    shell.listens("16686")
    shell.types('kubectl exec deployment/larder -- /larder get greeting --token "$LARDER_TOKEN" || true')

    def services():
        with urllib.request.urlopen(f"http://127.0.0.1:{shell.ports['16686']}/api/services", timeout=5) as answer:
            return '"larder"' in answer.read().decode()

    until("Jaeger knows larder", services, 30)


def the_program(shell, namespace):
    """`target/release/larder`, which the README built further up: the image's, which is the same for whoever calls it."""
    target = shell.folder / "target" / "release"
    target.mkdir(parents=True)
    container = run("docker", "create", "larder:0.1.0").strip()
    run("docker", "cp", f"{container}:/larder", target / "larder")
    run("docker", "rm", container)
