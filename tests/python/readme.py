"""The README's commands do what it says. Only the port differs: another replica may have the default one."""

import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from support.certificates import Authority, write_pair
from support.replica import BIN, CLEAN
from support.waiting import until

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
# Building is done before; starting takes cargo a moment.
PATIENCE = 60


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def shell(script, **environment):
    answer = subprocess.run(
        ["bash", "-euc", script], cwd=ROOT, env=ENVIRONMENT | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 0, f"{script}\n{answer.stdout}{answer.stderr}"
    return answer.stdout


# The commands find their addresses in the environment that the README says, and nothing else.
ENVIRONMENT = {name: value for name, value in CLEAN.items() if not name.startswith("LARDER_")}


class Process:
    """A command in the background, in a process group of its own."""

    def __init__(self, words, log, **environment):
        self.log = log
        with open(log, "w") as file:
            self.process = subprocess.Popen(
                words, cwd=ROOT, env=ENVIRONMENT | environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )

    def says(self, what):
        def said():
            assert self.process.poll() is None, self.log.read_text()
            return re.search(what, self.log.read_text())

        return until(f"it says {what}", said, PATIENCE)

    def interrupt(self):
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(timeout=30)

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=10)


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    """`larder dev` as the README starts it; the address of its gRPC port."""
    (command,) = [block.strip() for block in blocks("sh") if block.strip().endswith("-- dev")]
    assert command == "cargo run --release -- dev"
    process = Process([*command.split(), "--base-port", "0"], tmp_path_factory.mktemp("dev") / "log")
    try:
        process.target = process.says(r"LARDER_TARGET=(\S+)").group(1)
        process.says("Ctrl-C")
        yield process
    finally:
        process.close()


def lines_that_dev_prints(dev):
    printed = dev.log.read_text()
    lines = [line.strip() for line in printed.splitlines() if line.strip().startswith("export ") or re.match(r"\s+\S*larder ", line)]
    assert len(lines) == 6, printed
    return lines[:4], lines[4:]


def test_the_lines_that_dev_prints_store_and_get(dev):
    lines, _ = lines_that_dev_prints(dev)
    assert "hello, larder" in shell("\n".join(lines))


def test_the_readmes_lines_store_and_get(dev):
    (script,) = [block for block in blocks("sh") if "127.0.0.1:7090" in block]
    assert "127.0.0.1:7070" in script
    base = int(dev.target.rsplit(":", 1)[1])
    script = script.replace("127.0.0.1:7070", dev.target).replace("127.0.0.1:7090", f"127.0.0.1:{base + 20}")
    assert shell(script).count("hello, larder") == 2


def test_the_readmes_python(dev):
    (script,) = blocks("python")
    assert "127.0.0.1:7070" in script
    answer = subprocess.run(
        [sys.executable, "-c", script.replace("127.0.0.1:7070", dev.target)], capture_output=True, text=True, timeout=60
    )
    assert (answer.returncode, answer.stdout) == (0, "b'hello'\n"), answer.stderr


def test_the_lines_that_dev_prints_change_the_cluster(dev):
    _, lines = lines_that_dev_prints(dev)
    table = shell("\n".join(lines))
    assert table.count(" serving ") == 5, table


def test_the_readmes_lines_let_replicas_come_and_go_and_the_key_stays(dev):
    (script,) = [block for block in blocks("sh") if "larder dev scale" in block]
    base = dev.target.rsplit(":", 1)[1]
    token = "larder_dev_demo_read_and_write"
    # The README's Python has stored another one meanwhile, for a minute.
    shell("target/release/larder store greeting 'hello, larder'", LARDER_TARGET=dev.target, LARDER_TOKEN=token)
    table = shell(script, LARDER_BASE_PORT=base).strip().splitlines()[-2:]
    assert all(" serving " in row for row in table), table
    for row in table:
        target = row.split()[1]
        told = shell("target/release/larder get greeting", LARDER_TARGET=target, LARDER_TOKEN=token)
        assert "hello, larder" in told


def test_an_interrupt_ends_dev_in_good_order(dev):
    assert dev.interrupt() in (0, 130)


def test_the_readmes_production_lines(tmp_path):
    (script,) = [block for block in blocks("sh") if "larder account add" in block]
    lines = [line.split("#")[0].strip() for line in script.strip().splitlines()]
    add, serve = [line for line in lines if line.startswith("larder ")][:2]
    path = f"{pathlib.Path(BIN).parent}:{ENVIRONMENT['PATH']}"
    authority = Authority()
    write_pair(tmp_path, authority.issue())
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    here = f"cd {tmp_path}; "
    token = re.search(r"larder_\S+", shell(here + add, PATH=path)).group(0)
    assert token not in (tmp_path / "accounts.json").read_text()
    free = {f"LARDER_{which}LISTEN": "127.0.0.1:0" for which in ("", "HEALTH_", "ADMIN_")}
    ready = tmp_path / "ready.json"
    process = Process(["bash", "-c", f"{here} exec {serve}"], tmp_path / "log", PATH=path, LARDER_READY_FILE=str(ready), **free)
    try:
        import json

        until("it serves", ready.exists, PATIENCE)
        target = json.loads(ready.read_text())["grpc"]
        told = shell(
            "larder store greeting hello; larder get greeting",
            PATH=path,
            LARDER_TARGET=f"https://{target}",
            LARDER_TOKEN=token,
            LARDER_TLS_CA=str(tmp_path / "ca.pem"),
        )
        assert "hello" in told
        assert token not in process.log.read_text()
    finally:
        process.close()


def test_every_path_that_the_readme_links_to_is_there():
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path
