"""The chart's README has what values.yaml says."""

import json
import re

import yaml
from chart import CHART, VALUES, leaves

HEAD = """# The chart

Larder on Kubernetes: replicas that share the keys, a Service for clients, a headless one by which replicas find each other, accounts, and
the rest that a cluster asks for. How it behaves there, step by step, is in [docs/kubernetes.md](../../docs/kubernetes.md).

```sh
helm install larder charts/larder
```

`values-ha.yaml` is for production. Helm 3.16 or later, or 4; Kubernetes 1.31 or later. This page is made from `values.yaml`:
`tests/chart/run --update`.

| value | default | meaning |
|---|---|---|
"""


def described():
    """The comment `# -- …` above each value, by path."""
    comments, path, comment = {}, [], []
    for line in (CHART / "values.yaml").read_text().splitlines():
        text = line.strip()
        depth = (len(line) - len(line.lstrip())) // 2
        if text.startswith("# -- "):
            comment = [text[5:]]
        elif text.startswith("#") and comment:
            comment.append(text[2:])
        elif match := re.match(r"([\w./-]+):", text):
            path = [*path[:depth], match[1]]
            if comment:
                comments[tuple(path)] = " ".join(comment)
            comment = []
    return comments


def test_the_charts_readme_has_every_value(same_as_written):
    comments = described()
    rows = []
    for path, value in leaves(VALUES):
        known = next((path[:n] for n in range(len(path), 0, -1) if path[:n] in comments), None)
        assert known, f"{'.'.join(path)} has no sentence"
        if rows and rows[-1][0] == known:
            continue
        whole = VALUES
        for key in known:
            whole = whole[key]
        rows.append((known, f"| `{'.'.join(known)}` | `{json.dumps(whole)}` | {comments[known].replace('|', chr(92) + '|')} |"))
    same_as_written(CHART / "README.md", HEAD + "\n".join(row for _, row in rows) + "\n")


def test_the_values_are_250_lines_at_most_and_the_versions_agree():
    assert len((CHART / "values.yaml").read_text().splitlines()) <= 250
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    manifest = (CHART.parents[1] / "Cargo.toml").read_text()
    version = re.search(r'^version = "(.*)"', manifest, re.MULTILINE)[1]
    assert chart["appVersion"] == version
    assert f'image.version="{version}"' in (CHART.parents[1] / "Dockerfile").read_text()
