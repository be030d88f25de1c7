"""`larder bench --verify` as a pod of the cluster, through the Service: every answer is held against what was acknowledged before."""

import json
import subprocess
import threading
import time
import uuid

from release import TAG, until

POD = """
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  labels: {{app: bench}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 120
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    fsGroup: 65532
    seccompProfile: {{type: RuntimeDefault}}
  containers:
    - name: bench
      image: {image}
      imagePullPolicy: IfNotPresent
      args: {args}
      env:
        - {{name: LARDER_TARGET, value: "{target}"}}
        - {{name: LARDER_TOKEN_FILE, value: /token/token}}
        - {{name: LARDER_TLS_CA, value: "{ca}"}}
      resources:
        requests: {{cpu: 50m, memory: 64Mi}}
        limits: {{memory: 512Mi}}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {{drop: [ALL]}}
      volumeMounts:
        - {{name: token, mountPath: /token, readOnly: true}}
{mount}
  volumes:
    - name: token
      secret:
        secretName: {secret}
        items: [{{key: token, path: token}}]
{volume}
"""
MOUNT = "        - {name: ca, mountPath: /ca, readOnly: true}"
VOLUME = "    - {{name: ca, secret: {{secretName: {secret}, items: [{{key: ca.crt, path: ca.crt}}]}}}}"


class Load:
    """Runs from `with` on until `end`, which reads every key once more and returns what was found."""

    def __init__(self, release, *flags, rate=1000, keys=50_000, value_size="256", tls=None):
        self.release, self.name = release, f"bench-{uuid.uuid4().hex[:8]}"
        self.lines, self.rate, self.keys = [], rate, keys
        scheme = "https" if tls else "http"
        args = ["bench", "--rate", str(rate), "--keys", str(keys), "--value-size", value_size, "--json", "-"]
        args += flags or ["--verify", "--duration", "1h"]
        self.manifest = POD.format(
            name=self.name,
            image=f"larder:{TAG}",
            args=json.dumps(args),
            target=f"{scheme}://{release.fullname}:7070",
            secret=f"{release.fullname}-accounts",
            ca="/ca/ca.crt" if tls else "",
            mount=MOUNT if tls else "",
            volume=VOLUME.format(secret=tls) if tls else "",
        )

    def __enter__(self):
        self.hits = self.release.metrics("larder_store_hits_total")["larder_store_hits_total"]
        self.release.kubectl("apply", "-f", "-", input=self.manifest)
        phase = lambda: self.release.json("pod", self.name)["status"]["phase"]  # noqa: E731
        until("the load runs", lambda: phase() != "Pending", 30)
        # Followed from here on: when the pod has gone, so have its logs.
        self.following = subprocess.Popen(
            ["kubectl", "-n", self.release.namespace, "logs", "-f", self.name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.thread = threading.Thread(target=lambda: self.lines.extend(self.following.stdout), daemon=True)
        self.thread.start()
        # Every key is stored once before calls begin to count.
        until("the load counts", lambda: self._is_counting() or self._has_ended(), 120)
        assert not self._has_ended(), "".join(self.lines)
        return self

    def _is_counting(self):
        sums = self.release.metrics("larder_store_entries", "larder_store_hits_total")
        return sums["larder_store_entries"] >= self.keys and sums["larder_store_hits_total"] > self.hits + 2 * self.rate

    def _has_ended(self):
        return self.following.poll() is not None

    def end(self):
        """SIGTERM; the report."""
        told = time.monotonic()
        self.release.kubectl("delete", "pod", self.name, "--wait=false")
        self.thread.join(timeout=120)
        self.following.kill()
        reports = [line for line in self.lines if line.startswith("{")]
        assert reports, "the load ended without a report:\n" + "".join(self.lines)
        report = json.loads(reports[-1])
        # Its last second is the one in which it was told to end; calls it made none in have no latency.
        rows = report.pop("series")
        report["of_seconds"] = [(told + row["at_s"] - rows[-1]["at_s"], row["p99_us"]) for row in rows if row["succeeded"]]
        return report

    def __exit__(self, *_):
        self.release.kubectl("delete", "pod", self.name, "--wait=false", "--ignore-not-found", "--grace-period=1", check=False)
        self.following.kill()
