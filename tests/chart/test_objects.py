"""What the chart and the overlays make is valid Kubernetes, and the same whichever way it is made."""

import json
import os
import subprocess

import pytest
import yaml
from chart import CHART, CI, FOREIGN, ROOT, kustomize, objects, render
from schemas import location

OVERLAYS = sorted(path.parent for path in (ROOT / "k8s" / "overlays").glob("*/kustomization.yaml"))
CONTAINER = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def kubeconform(text):
    command = ["kubeconform", "-strict", "-summary", "-output", "json", "-skip", ",".join(FOREIGN), *location()]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)
    said = done.stdout + done.stderr
    if done.returncode != 0 and not location() and "download" in said and not os.environ.get("CI"):
        pytest.skip("no API server answers, and the net has no schemas for kubeconform")
    return done.returncode, said


@pytest.mark.parametrize("values", [*CI, CHART / "values-ha.yaml"], ids=lambda path: path.stem)
def test_what_the_chart_makes_is_valid(values):
    code, said = kubeconform(render("--values", values))
    assert code == 0, said


@pytest.mark.parametrize("folder", [ROOT / "k8s" / "base", *OVERLAYS], ids=lambda path: path.name)
def test_what_kustomize_makes_is_valid(folder):
    code, said = kubeconform(kustomize(folder))
    assert code == 0, said


def test_the_example_with_jaeger_is_valid():
    code, said = kubeconform((ROOT / "examples" / "jaeger" / "jaeger.yaml").read_text())
    assert code == 0, said


def test_a_field_that_does_not_exist_is_noticed():
    code, said = kubeconform(render().replace("periodSeconds:", "periodSecond:"))
    assert code != 0 and "periodSecond" in said


@pytest.mark.parametrize("values", CI, ids=lambda path: path.stem)
def test_every_container_is_restricted(values):
    for (kind, _), made in objects(render("--values", values)).items():
        pod = {"Pod": made.get("spec"), "Deployment": made.get("spec", {}).get("template", {}).get("spec")}.get(kind)
        if pod is None:
            continue
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"] + pod.get("initContainers", []):
            assert container["securityContext"] == CONTAINER
            assert container["resources"]["limits"]["memory"]


def test_two_releases_in_one_namespace_share_nothing():
    one, other = (objects(render(release=name)) for name in ("one", "other"))
    assert not set(one) & set(other)
    for made in (one, other):
        [selector] = {json.dumps(it["spec"]["selector"], sort_keys=True) for (kind, _), it in made.items() if kind == "Service"}
        labels = next(it for (kind, _), it in made.items() if kind == "Deployment")["spec"]["template"]["metadata"]["labels"]
        assert json.loads(selector).items() <= labels.items()
    assert one["Service", "one-larder"]["spec"]["selector"] != other["Service", "other-larder"]["spec"]["selector"]


BASE_VALUES = ["--set", "accounts.existingSecret=larder-accounts"]


def test_base_is_the_rendered_chart(same_as_written):
    files = {}
    for part in render(*BASE_VALUES).split("---\n# Source: larder/templates/")[1:]:
        name, text = part.split("\n", 1)
        if name.startswith("tests/"):
            continue
        # What only helm needs. The namespace is the overlay's.
        lines = [line for line in text.strip().splitlines() if "helm.sh/chart:" not in line and "managed-by: Helm" not in line]
        files[name] = "\n".join(lines) + "\n"
    base = ROOT / "k8s" / "base"
    for name, text in files.items():
        same_as_written(base / name, text)
    head = "# The chart as it comes, but for the Secret of accounts, which each overlay brings: `tests/chart/run --update`.\n"
    kustomization = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": sorted(files)}
    same_as_written(base / "kustomization.yaml", head + yaml.safe_dump(kustomization, sort_keys=False))
    assert {path.name for path in base.iterdir()} == {*files, "kustomization.yaml"}


# The overlays' patches are written by hand; the chart, with these values, makes the same.
SAME = {
    "dev": "--set replicaCount=1,settings.tutorial-api=true,settings.log-format=text",
    "production": f"--values {CHART / 'values-ha.yaml'}",
    "tls": "--set tls.clients.enabled=true,tls.clients.secretName=larder-tls,"
    "tls.peers.enabled=true,tls.peers.secretName=larder-peer-tls",
}


def comparable(deployment):
    spec = deployment["spec"]
    [container] = spec["template"]["spec"]["containers"]
    for place, key in [(container, "env"), (container, "volumeMounts"), (spec["template"]["spec"], "volumes")]:
        place[key] = sorted(place[key], key=lambda item: item["name"])
    spec["template"]["spec"]["topologySpreadConstraints"].sort(key=lambda constraint: constraint["topologyKey"])
    return spec


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_an_overlay_is_the_chart_with_values(overlay):
    chart = objects(render(*BASE_VALUES, *SAME[overlay.name].split()))
    made = objects(kustomize(overlay))
    assert comparable(made["Deployment", "larder"]) == comparable(chart["Deployment", "larder"])
    # Metrics need operators that a cluster may not have; the overlay leaves them to whoever has them.
    optional = {"ServiceMonitor", "PrometheusRule", "ConfigMap"}
    assert {key for key in chart if key[0] not in {*optional, "Pod"}} <= set(made)
    namespaces = {it["metadata"].get("namespace") for (kind, _), it in made.items() if kind != "Namespace"}
    assert len(namespaces) == 1 and None not in namespaces
    [subject] = made["RoleBinding", "larder"]["subjects"]
    assert {subject["namespace"]} == namespaces
