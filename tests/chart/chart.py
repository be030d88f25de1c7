"""The chart, and what helm makes of it."""

import copy
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "larder"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
# Of Kubernetes, that the chart says it runs on.
OLDEST = "1.31.0"
CI = sorted((CHART / "ci").glob("*-values.yaml"))
# Kinds that no API server knows by itself.
FOREIGN = ["Certificate", "PrometheusRule", "ServiceMonitor"]


class Refused(Exception):
    """helm does not render these values, and says why."""


def helm(*words):
    done = subprocess.run(["helm", *map(str, words)], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise Refused(done.stderr)
    return done.stdout


def render(*flags, release="larder", namespace="larder"):
    """The text that is applied."""
    return helm("template", release, CHART, "--namespace", namespace, "--kube-version", OLDEST, *flags)


def rendered_with(values, folder, *flags):
    """The same with values that are merged over the chart's own."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    return render("--values", file, *flags)


def objects(text):
    """By kind and name."""
    parsed = [document for document in yaml.safe_load_all(text) if document]
    return {(document["kind"], document["metadata"]["name"]): document for document in parsed}


def kustomize(folder):
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def merged(base, over):
    """As helm merges values."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return copy.deepcopy(over)
    result = copy.deepcopy(base)
    for key, value in over.items():
        result[key] = merged(result[key], value) if key in result else copy.deepcopy(value)
    return result


def leaves(values, path=()):
    """Paths of all values that are no further map; an empty map or list counts as one."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value
