"""JSON schemas of Kubernetes' own kinds, for kubeconform: made of what the API server of `KUBECONFIG` says of itself, so that nothing is
downloaded; without one kubeconform takes those of its own place on the net."""

import atexit
import functools
import json
import shutil
import subprocess
import tempfile
from pathlib import Path


@functools.cache
def location():
    """kubeconform's flags."""
    asked = subprocess.run(["kubectl", "get", "--raw", "/openapi/v2", "--request-timeout=20s"], capture_output=True, text=True, timeout=60)
    if asked.returncode != 0:
        return ()
    folder = Path(tempfile.mkdtemp(prefix="larder-schemas-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    definitions = json.loads(asked.stdout)["definitions"]
    for name, definition in definitions.items():
        # As `kubectl` reads manifests with `--validate=strict`: an unknown field is a mistake.
        if "properties" in definition and "additionalProperties" not in definition:
            definition["additionalProperties"] = False
        if name.endswith(("resource.Quantity", "intstr.IntOrString")):
            definition.clear()
            definition["type"] = ["string", "number"]
    all_of_them = {"definitions": definitions}
    (folder / "all.json").write_text(json.dumps(all_of_them))
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            parts = [kind["kind"], *filter(None, [kind["group"].split(".")[0]]), kind["version"]]
            file = folder / ("-".join(parts).lower() + ".json")
            file.write_text(json.dumps({"$ref": f"all.json#/definitions/{name}"}))
    template = "{{.ResourceKind}}{{.KindSuffix}}.json"
    return ("-schema-location", f"{folder}/{template}")
