"""Values: each is used, each is described, and wrong ones are refused."""

import json
import re

import pytest
import yaml
from chart import CHART, CI, OLDEST, ROOT, VALUES, Refused, helm, leaves, merged, objects, render, rendered_with

EVERYTHING = yaml.safe_load((CHART / "ci" / "everything-values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())

# What must be said beside, so that a value can mean anything: most are read with everything on.
BESIDE = {
    ("accounts", "existingSecret"): {"accounts": {"token": ""}},
    ("accounts", "tokenHash"): {"accounts": {"token": ""}},
    ("nameOverride",): {"fullnameOverride": ""},
    ("replicaCount",): {"autoscaling": {"enabled": False}},
    ("autoscaling",): {"autoscaling": {"enabled": True}},
    ("tls", "clients", "secretName"): {"tls": {"clients": {"secretName": "given", "certManager": {"enabled": False}}}},
    ("tls", "peers", "secretName"): {"tls": {"peers": {"secretName": "given", "certManager": {"enabled": False}}}},
    ("tls", "clients", "certManager", "enabled"): {"tls": {"clients": {"secretName": "given"}}},
    ("tls", "peers", "certManager", "enabled"): {"tls": {"peers": {"secretName": "given"}}},
}

# What a value is changed into where another of its type would be refused.
INTO = {
    ("accounts", "url"): "https://accounts.example",
    ("accounts", "tokenHash"): "sha256:" + "4" * 64,
    ("accounts", "token"): "9876543210abcdefghijklmnopqrstuvwxyz",
    ("accounts", "extraTokenHashes"): [],
    ("accounts", "limits"): {"max_bytes": 5},
    ("accounts", "more"): [],
    ("handoffRate",): "128Mi",
    ("image", "digest"): "sha256:" + "5" * 64,
    ("image", "pullPolicy"): "Always",
    ("imagePullSecrets",): [],
    ("ipFamily",): "ipv6",
    ("networkPolicy", "clients"): [],
    ("networkPolicy", "monitoring"): [],
    ("podDisruptionBudget", "maxUnavailable"): "10%",
    ("resources", "limits", "memory"): "1Gi",
    ("resources", "requests", "memory"): "256Mi",
    ("resources", "requests", "cpu"): "1",
    ("service", "type"): "NodePort",
    ("settings",): {"workers": 2},
    ("telemetry", "otlp", "endpoint"): "http://other:4317",
    ("telemetry", "otlp", "samplingRatio"): 0.5,
    ("telemetry", "serviceMonitor", "interval"): "30s",
    ("terminationGracePeriodSeconds",): 200,
    ("tls", "clients", "clientAuth"): "required",
    ("tls", "clients", "certManager", "duration"): "24h",
    ("tls", "peers", "certManager", "duration"): "24h",
    ("tls", "clients", "certManager", "issuerRef"): {"name": "other"},
    ("tls", "peers", "certManager", "issuerRef"): {"name": "other"},
    ("tolerations",): [],
    ("affinity",): {},
    ("topologySpread", "kubernetes.io/hostname"): "DoNotSchedule",
    ("topologySpread", "topology.kubernetes.io/zone"): "DoNotSchedule",
    ("tls", "clients", "certManager", "dnsNames"): [],
    ("extraEnv",): [],
}


def another(path, value):
    if path in INTO:
        return INTO[path]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, dict):
        return {"added": "1"}
    return "other"


def replaced(values, path, value):
    """A copy in which the value at the path is another, maps included."""
    key, *rest = path
    return {**values, key: replaced(values.get(key, {}), rest, value) if rest else value}


def without_chance(text):
    """The names of the keys of `helm test` are random."""
    return re.sub(r"helm-test/\w+", "helm-test/", text)


@pytest.mark.parametrize("path", [path for path, _ in leaves(VALUES)], ids=".".join)
def test_every_value_is_used(path, tmp_path):
    values = EVERYTHING
    for where, beside in BESIDE.items():
        if path[: len(where)] == where:
            values = merged(values, beside)
    value = merged(VALUES, values)
    for key in path:
        value = value[key]
    told, untold = replaced(values, path, another(path, value)), values
    try:
        changed = rendered_with(told, tmp_path)
    except Refused as refused:
        raise AssertionError(f"{told} is refused: {refused}") from refused
    assert without_chance(changed) != without_chance(rendered_with(untold, tmp_path)), f"{'.'.join(path)} changes nothing"


def test_every_value_is_described_and_typed():
    described = re.findall(r"^ *# -- (.*)$", (CHART / "values.yaml").read_text(), re.MULTILINE)
    assert all(sentence[0].isupper() or sentence[0] == "`" for sentence in described)
    for path, _ in leaves(VALUES):
        place = SCHEMA
        for key in path:
            if not place.get("properties"):
                break
            assert key in place["properties"], f"{'.'.join(path)} is not in the schema"
            place = place["properties"][key]


def closed(place, path=""):
    """Objects of the schema that take any property."""
    if place.get("type") == "object" and "properties" in place and place.get("additionalProperties") is not False:
        yield path
    for key, inner in place.get("properties", {}).items():
        yield from closed(inner, f"{path}.{key}")
    if isinstance(place.get("items"), dict):
        yield from closed(place["items"], f"{path}[]")


def test_the_schema_is_closed():
    assert list(closed(SCHEMA)) == []
    assert SCHEMA["additionalProperties"] is False


# Flags that the chart sets itself, from values of its own or because of where it runs.
OWN = """
    accounts accounts-ca accounts-url address-family admin-listen advertise cluster drain-delay drain-timeout handoff-rate health-listen
    linger listen members-file members-namespace members-service peer-listen peer-tls-ca peer-tls-cert peer-tls-key peer-tls-name
    ready-file tls-cert tls-client-auth tls-client-ca tls-key uid
""".split()


def test_settings_are_the_flags_of_larder_serve():
    page = (ROOT / "docs" / "configuration.md").read_text()
    flags = {flag for flag, variable in re.findall(r"^\| `--([a-z-]+)` \| `(\w+)`", page, re.MULTILINE) if variable.startswith("LARDER_")}
    assert set(SCHEMA["properties"]["settings"]["properties"]) == flags - set(OWN)
    assert set(OWN) <= flags, "these are no flags any more"


WRONG = [
    ("misspelt: 1", "misspelt"),
    ("replicaCount: -1", "replicaCount"),
    ("replicaCount: three", "replicaCount"),
    ("image: {pullPolicy: Sometimes}", "pullPolicy"),
    ("image: {digest: latest}", "digest"),
    ("accounts: {id: tutorial}", "accounts/id"),
    ("accounts: {id: Team_A}", "accounts/id"),
    ("accounts: {tokenHash: abc}", "tokenHash"),
    ("accounts: {limits: {max_keys: 1}}", "max_keys"),
    ("accounts: {more: [{id: b, tokens: [{hash: plain}]}]}", "hash"),
    ("accounts: {token: short}", "32 characters"),
    ("accounts: {existingSecret: a, url: http://b}", "both"),
    ("accounts: {url: http://user:password@b}", "url"),
    ("accounts: {token: 0123456789abcdefghijklmnopqrstuvwxyz, tokenHash: 'sha256:" + "0" * 64 + "'}", "both"),
    ("settings: {max-conections: 1}", "max-conections"),
    ("settings: {listen: '0.0.0.0:1'}", "listen"),
    ("settings: {max-deadline: soon}", "max-deadline"),
    ("settings: {capacity: lots}", "capacity"),
    ("resources: {limits: {memory: null}}", "memory"),
    ("resources: {limits: {memory: 1Q}}", "memory"),
    ("handoffRate: 1Ki", "handoffRate"),
    ("terminationGracePeriodSeconds: 5", "terminationGracePeriodSeconds"),
    ("ipFamily: both", "ipFamily"),
    ("service: {type: ExternalName}", "type"),
    ("service: {port: 0}", "port"),
    ("tls: {clients: {enabled: true}}", "tls.clients.secretName"),
    ("tls: {peers: {enabled: true, certManager: {enabled: true}}}", "issuerRef.name"),
    ("tls: {clients: {clientAuth: maybe}}", "clientAuth"),
    ("telemetry: {otlp: {endpoint: 'jaeger:4317'}}", "endpoint"),
    ("telemetry: {otlp: {samplingRatio: 2}}", "samplingRatio"),
    ("autoscaling: {enabled: true, minReplicas: 5, maxReplicas: 2}", "maxReplicas"),
    ("podDisruptionBudget: {maxUnavailable: 0}", "maxUnavailable"),
    ("topologySpread: {zone: Never}", "topologySpread"),
    ("extraEnv: [{nam: A}]", "nam"),
]


@pytest.mark.parametrize(("values", "named"), WRONG, ids=[values for values, _ in WRONG])
def test_wrong_values_are_refused_with_their_name(values, named, tmp_path):
    with pytest.raises(Refused) as refused:
        rendered_with(yaml.safe_load(values), tmp_path)
    assert named in str(refused.value)


@pytest.mark.parametrize("values", CI, ids=lambda path: path.stem)
def test_helm_finds_no_fault(values):
    helm("lint", "--strict", CHART, "--kube-version", OLDEST, "--values", values)


def test_grace_and_drain_follow_from_memory_and_rate():
    for memory, rate, grace in [("256Mi", "64Mi", 39), ("128Mi", "64Mi", 35), ("512Mi", "64Mi", 63), ("8Gi", "256Mi", 207), ("8Gi", "64Mi", 783)]:
        made = objects(render("--set", f"resources.limits.memory={memory},handoffRate={rate}"))
        pod = made["Deployment", "larder"]["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] == grace, (memory, rate)
        environment = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
        assert environment["LARDER_DRAIN_TIMEOUT"] == f"{grace - 10}s", "the rest is for 5 s before and the ends of connections"


def test_names_have_63_characters_at_most():
    made = objects(render(release="r" * 53)) | objects(render("--set", "fullnameOverride=" + "f" * 70))
    assert max(len(name) for _, name in made) <= 63


def test_without_an_autoscaler_the_chart_says_how_many_replicas_and_with_one_it_does_not():
    assert objects(render())["Deployment", "larder"]["spec"]["replicas"] == 3
    made = objects(render("--values", CHART / "ci" / "autoscaling-values.yaml"))
    assert "replicas" not in made["Deployment", "larder"]["spec"]
    assert made["HorizontalPodAutoscaler", "larder"]["spec"]["minReplicas"] == 2


def test_a_token_and_its_hash_belong_together():
    import base64
    import hashlib

    made = objects(render())["Secret", "larder-accounts"]["data"]
    token, accounts = (base64.b64decode(made[key]) for key in ("token", "accounts.json"))
    assert re.fullmatch(rb"larder_[0-9a-z]{32}", token)
    [account] = json.loads(accounts)["accounts"]
    assert account == {"id": "default", "tokens": [{"hash": "sha256:" + hashlib.sha256(token).hexdigest()}]}
    hashed = objects(render("--values", CHART / "ci" / "hashed-values.yaml"))["Secret", "larder-accounts"]["data"]
    assert "token" not in hashed
