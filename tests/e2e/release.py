"""One release of the chart in a namespace, as an operator sees it: helm, kubectl, and what the pods say."""

import base64
import json
import os
import re
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "larder"
VERSION = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
TAG = os.environ.get("LARDER_IMAGE_TAG", VERSION)
# Small, so that several releases fit on one node.
SMALL = ["--set", "resources.requests.cpu=50m,resources.requests.memory=64Mi,resources.limits.memory=256Mi"]


def run(*words, input=None, timeout=120, check=True):
    done = subprocess.run([str(word) for word in words], input=input, capture_output=True, text=True, timeout=timeout)
    assert not check or done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}"
    return done.stdout


def until(what, check, seconds):
    """Waits for a value that is true; the wait is bounded and on that value."""
    end = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < end, f"after {seconds} s it is still not so that {what}"
        time.sleep(0.2)
    return value


class Release:
    def __init__(self, namespace, name="larder"):
        self.namespace, self.name = namespace, name
        self.fullname = name if "larder" in name else f"{name}-larder"

    def kubectl(self, *words, **options):
        return run("kubectl", "-n", self.namespace, *words, **options)

    def json(self, *words):
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def helm(self, verb, *words, **options):
        return run("helm", verb, "-n", self.namespace, self.name, *words, **options)

    def install(self, *flags):
        """Installs and waits; how long that took until every pod was ready."""
        began = time.monotonic()
        self.helm("install", CHART, "--set", f"image.tag={TAG}", *flags, "--wait", "--timeout", "60s")
        return time.monotonic() - began

    def upgrade(self, *flags):
        replicas = self.json("deployment", self.fullname)["spec"]["replicas"]
        kept = ["--reset-then-reuse-values", "--set", f"replicaCount={replicas}"]
        self.helm("upgrade", CHART, *kept, *flags, "--wait", "--timeout", "120s")

    def pods(self):
        """Those that are there, also those that end."""
        return self.json("pods", "-l", f"app.kubernetes.io/name=larder,app.kubernetes.io/instance={self.name}")["items"]

    def ready_times(self):
        """Seconds from creation to readiness, by pod."""
        times = {}
        for pod in self.pods():
            conditions = {condition["type"]: condition for condition in pod["status"]["conditions"]}
            ready, made = (conditions["Ready"]["lastTransitionTime"], pod["metadata"]["creationTimestamp"])
            parse = lambda text: time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))  # noqa: E731
            times[pod["metadata"]["name"]] = parse(ready) - parse(made)
        return times

    def scale(self, replicas):
        self.kubectl("scale", f"deployment/{self.fullname}", f"--replicas={replicas}")
        self.settles(replicas)

    def restart(self):
        replicas = self.json("deployment", self.fullname)["spec"]["replicas"]
        self.kubectl("rollout", "restart", f"deployment/{self.fullname}")
        self.kubectl("rollout", "status", f"deployment/{self.fullname}", "--timeout=120s", timeout=130)
        self.settles(replicas)

    def settles(self, replicas, seconds=120):
        """Waits until so many pods are there, all ready, and none ends any more."""

        def settled():
            pods = self.pods()
            ending = [pod for pod in pods if "deletionTimestamp" in pod["metadata"]]
            return len(pods) == replicas and not ending and all(map(ready, pods))

        until(f"{replicas} pods are ready, and no other is there", settled, seconds)

    @property
    def token(self):
        return base64.b64decode(self.json("secret", f"{self.fullname}-accounts")["data"]["token"]).decode()

    def larder(self, *words):
        """The command, in a pod of the release. (The token not by standard input: some runtimes lose that of `exec` now and then.)"""
        command = ["exec", f"deployment/{self.fullname}", "--", "/larder", *words, "--token", self.token, "--timeout", "10s"]
        return self.kubectl(*command)

    def page(self, pod, path):
        """A page of a pod's admin port, by way of the API server; nothing while nobody answers."""
        return self.kubectl("get", "--raw", f"/api/v1/namespaces/{self.namespace}/pods/{pod}:7073/proxy/{path}", check=False)

    def metrics(self, *names):
        """Sums over the pods that serve, of metrics by their names or of samples by name and labels."""
        sums = dict.fromkeys(names, 0.0)
        for pod in self.pods():
            if not ready(pod) or "deletionTimestamp" in pod["metadata"]:
                continue
            for line in self.page(pod["metadata"]["name"], "metrics").splitlines():
                sample, _, value = line.rpartition(" ")
                for name in {sample, sample.split("{")[0]} & sums.keys():
                    sums[name] += float(value)
        return sums

    def left(self):
        """What of the release is still in the namespace."""
        kinds = "deployments,replicasets,pods,services,endpointslices,secrets,configmaps,serviceaccounts,roles,rolebindings,pdb,hpa,netpol,jobs"
        names = self.kubectl("get", kinds, "-l", f"app.kubernetes.io/instance={self.name}", "-o", "name").split()
        others = [line for line in self.kubectl("get", "secrets,pods", "-o", "name").split() if self.fullname in line]
        return sorted({*names, *others})


def ready(pod):
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in pod["status"].get("conditions", []))
