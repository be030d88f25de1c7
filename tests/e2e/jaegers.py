"""The Jaeger of examples/jaeger, as its file says, and its query API."""

import json
import os

from release import ROOT, run, until

from support.jaeger import Jaeger as Query

# Another image with the same program, for a cluster that pulls nothing.
IMAGE = os.environ.get("LARDER_E2E_JAEGER_IMAGE")
ENDPOINT = "http://jaeger:4317"


class Jaeger(Query):
    """It is asked by way of the API server."""

    def __init__(self, namespace):
        self.namespace = namespace
        manifest = (ROOT / "examples" / "jaeger" / "jaeger.yaml").read_text()
        if IMAGE:
            [its_own] = [line.split()[-1] for line in manifest.splitlines() if line.strip().startswith("image:")]
            manifest = manifest.replace(its_own, IMAGE)
        self._kubectl("apply", "-f", "-", input=manifest)
        self.scale(1)

    def _kubectl(self, *words, **options):
        return run("kubectl", "-n", self.namespace, *words, **options)

    def scale(self, replicas):
        self._kubectl("scale", "deployment/jaeger", f"--replicas={replicas}")
        self._kubectl("rollout", "status", "deployment/jaeger", "--timeout=60s")
        labelled = lambda: self._kubectl("get", "pods", "-l", "app.kubernetes.io/name=jaeger", "-o", "name").split()  # noqa: E731
        until(f"Jaeger has {replicas} pods", lambda: len(labelled()) == replicas, 60)

    def ask(self, path):
        answer = self._kubectl("get", "--raw", f"/api/v1/namespaces/{self.namespace}/services/jaeger:query/proxy/api/{path}", check=False)
        return json.loads(answer) if answer else None
