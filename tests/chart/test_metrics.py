"""Every metric that an alert or the dashboard names is on a replica's /metrics, with the labels that they ask for."""

import json
import re
import urllib.request

import pytest
from chart import CHART, objects, render
from support.certificates import Authority
from support.cluster import Cluster
from support.replica import Replica

NAME = re.compile(r"(larder_[a-z0-9_]+)(?:\{([^}]*)\})?")
SUFFIXES = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "info": ["_info"], "gauge": [""]}
# What Prometheus adds when it asks.
ADDED = {"namespace", "service", "pod", "job", "instance", "le"}


def page(replica):
    with urllib.request.urlopen(f"http://{replica.addresses['admin']}/metrics", timeout=10) as answer:
        return answer.read().decode()


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Metrics by the name that queries have, with the labels seen."""
    folder = tmp_path_factory.mktemp("metrics")
    authority = Authority()
    files = {"ca": authority.pem}
    files["cert"], files["key"] = authority.issue("larder")
    flags = []
    for name, content in files.items():
        (folder / name).write_bytes(content)
        flags += [f"--peer-tls-{name}", folder / name] + ([f"--tls-{name}", folder / name] if name != "ca" else [])
    # Nothing listens there: spans are counted all the same.
    with Cluster(folder, 1, *flags, "--otlp-traces-endpoint", "http://127.0.0.1:1") as cluster:
        text = page(cluster.replicas[0])
    alone = folder / "alone"
    alone.mkdir()
    with Replica(alone, accounts_flags=["--accounts-url", "http://127.0.0.1:1"]) as replica:
        text += page(replica)
    found = {}
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE):
        for suffix in SUFFIXES[kind]:
            found[name + suffix] = set()
    for name, labels in re.findall(r"^(\w+)\{(.*)\} \S+$", text, re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


# A family without a sample has no labels to be seen: calls that a fresh replica has not had.
SILENT = {
    "larder_calls_total": {"method", "code"},
    "larder_calls_carried_out_total": {"method", "code"},
    "larder_call_duration_seconds_bucket": {"method"},
    "larder_call_duration_seconds_count": {"method"},
    "larder_call_duration_seconds_sum": {"method"},
    "larder_request_bytes_total": {"method"},
    "larder_response_bytes_total": {"method"},
}


def queries():
    """Every query of the dashboard and of the rules, by where it stands."""
    values = CHART / "ci" / "everything-values.yaml"
    made = objects(render("--values", values)) | objects(
        render("--values", CHART / "ci" / "accounts-service-values.yaml", release="service")
    )
    for (kind, name), rule in made.items():
        if kind == "PrometheusRule":
            for alert in rule["spec"]["groups"][0]["rules"]:
                yield f"{name}: {alert['alert']}", alert["expr"]
    dashboard = json.loads((CHART / "dashboards" / "larder.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"dashboard: {panel['title']}", target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield f"dashboard: ${variable['name']}", variable["query"]


@pytest.mark.parametrize(("where", "query"), list(queries()), ids=[where for where, _ in queries()])
def test_metrics_and_labels_exist(where, query, known):
    named = NAME.findall(query)
    assert named, f"{where} asks for no metric of ours"
    for name, labels in named:
        assert name in known, f"{where}: there is no {name}"
        asked = set(re.findall(r"(\w+)\s*[=!]~?", labels)) - ADDED
        assert asked <= known[name] | SILENT.get(name, set()), f"{where}: {name} has no labels {asked - known[name]}"


def test_every_alert_says_what_to_do():
    made = objects(render("--values", CHART / "ci" / "everything-values.yaml"))
    rules = [rule for (kind, _), rule in made.items() if kind == "PrometheusRule"]
    alerts = [alert for rule in rules for group in rule["spec"]["groups"] for alert in group["rules"]]
    assert len(alerts) > 10
    for alert in alerts:
        assert alert["labels"]["severity"] in ("critical", "warning", "info")
        assert alert["annotations"]["summary"] and len(alert["annotations"]["runbook"]) > 30, alert["alert"]
