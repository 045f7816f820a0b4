"""The chart as Helm's SDK sees it, the value sets that are looked at, and the table of docs/rbac.md."""

import contextlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path

import helm_python
import yaml
from helm_python import _native

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm"
GOLDENS = ROOT / "tests" / "goldens" / "helm"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
RELEASE, NAMESPACE = "cupcake", "kube-system"

# What is rendered: name of the golden -> (version of Kubernetes, values). Each says in a word why it is there.
CASES = {
    # what nearly everybody gets
    "default-1.34": ("1.34.4", {}),
    # the oldest: one replica, no policies, AppArmor by annotation
    "default-1.24": ("1.24.17", {}),
    # the last without policies and with the rules of the definitions
    "default-1.29": ("1.29.15", {}),
    # every value changed that changes what is rendered
    "everything-1.37": (
        "1.37.0",
        {
            "global": {"imageRegistry": "registry.example.com/cupcake", "imagePullSecrets": [{"name": "pull"}]},
            "namespaceOverride": "cupcake-system",
            "commonLabels": {"team": "platform"},
            "knownVersions": ["1.36.9", "1.37.1"],
            "crds": {"keep": False},
            "rbac": {"userRoles": {"aggregateToView": False}},
            "admissionPolicies": {"exemptUsers": ["system:serviceaccount:velero:velero"]},
            "operator": {
                "replicaCount": 3,
                "image": {"tag": "1.2.3"},
                "env": {"logLevel": "info,cupcake_operator=debug"},
                "extraEnv": [{"name": "KUBERNETES_SERVICE_HOST", "value": "api.example.com"}],
                "leaderElection": {"leaseDuration": "15s", "renewDeadline": "10s", "retryPeriod": "2s"},
                "listenAddress": "[::]",
                "metrics": {
                    "port": 9090,
                    "service": {"annotations": {"example.com/scrape": "yes"}},
                    "serviceMonitor": {"enabled": True, "interval": "10s", "labels": {"release": "prometheus"}},
                    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
                    "dashboards": {"enabled": True, "labels": {"example.com/folder": "upgrades"}},
                },
                "serviceAccount": {"name": "upgrader", "annotations": {"example.com/role": "upgrader"}},
                "nodeSelector": {"node-role.kubernetes.io/control-plane": ""},
                "tolerations": [{"operator": "Exists"}],
                "affinity": {"nodeAffinity": {}},
                "topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
                ],
                "podAnnotations": {"example.com/note": "operator"},
                "podLabels": {"example.com/tier": "control", "app.kubernetes.io/name": "mine"},
            },
            "notifications": {"url": "https://hooks.example.com/services/T0KEN", "format": "slack", "cluster": "prod-eu"},
            "gates": {"prometheus": {"existingSecret": "prometheus"}},
            "agent": {
                "image": {"digest": "sha256:" + "0123456789abcdef" * 4},
                "env": {"logLevel": "debug"},
                "extraEnv": [{"name": "CUPCAKE_BUS", "value": "unix:path=/run/dbus/system_bus_socket"}],
                "hostPath": "/srv/cupcake",
                "updateStrategy": {"rollingUpdate": {"maxUnavailable": 1}},
                "appArmorProfile": {"type": "Localhost", "localhostProfile": "cupcake"},
                "seLinuxOptions": {"type": "spc_t"},
                "podAnnotations": {"example.com/note": "agent"},
                "podLabels": {"example.com/tier": "node"},
            },
        },
    ),
    # as little as possible
    "least-1.34": (
        "1.34.4",
        {
            "crds": {"install": False},
            "rbac": {"create": False, "userRoles": {"create": False}},
            "admissionPolicies": {"enabled": False},
            "operator": {
                "leaderElection": {"enabled": False},
                "metrics": {"enabled": False},
                "podDisruptionBudget": {"enabled": False},
                "serviceAccount": {"create": False},
                "priorityClassName": "",
                "nodeSelector": None,
                "tolerations": [],
            },
            "agent": {"enabled": False, "serviceAccount": {"create": False}},
        },
    ),
}


@contextlib.contextmanager
def quiet():
    """Keeps what the native library says of links in the chart's folder off the terminal."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def load() -> helm_python.Chart:
    """The chart packed and loaded again: what a user gets, with nothing left behind that the folder only links to."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        archive = helm_python.package(CHART, destination=folder)
        return helm_python.Chart.load_archive(Path(archive).read_bytes())


def render_texts(chart, kube_version, values, api_versions=()):
    """Template name -> text. The SDK's own Chart.render knows no version of Kubernetes; the library below it does."""
    options = {"name": RELEASE, "namespace": NAMESPACE, "kube_version": kube_version, "api_versions": list(api_versions)}
    return json.loads(_native.call_string("helm_render", chart._raw(), json.dumps(values), json.dumps(options)))


def objects(texts):
    """The rendered objects, in the order of their templates' names."""
    found = []
    for name in sorted(texts):
        if name.endswith((".yaml", ".yml")):
            found += [document for document in yaml.load_all(texts[name], LOADER) if document]
    return found


def render(chart, kube_version, values, api_versions=()):
    return objects(render_texts(chart, kube_version, values, api_versions))


def find(all_objects, kind, name):
    """The object of that kind and name; None if it is not there."""
    return next((one for one in all_objects if one["kind"] == kind and one["metadata"]["name"] == name), None)


ROW = re.compile(r"^\| (operator|agent) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$")


def rbac_table():
    """docs/rbac.md as rows: (account, namespace or *, group, resource or path, verb, name or *, files that call it)."""
    rows = []
    for line in (ROOT / "docs" / "rbac.md").read_text().splitlines():
        if match := ROW.match(line):
            account, where, group, resource, verb, name, callers = (part.replace("`", "") for part in match.groups())
            group = "" if group == "core" else group
            files = [part for part in re.split(r"[ ,]+", callers) if part.endswith(".rs")]
            rows.append((account, where, group, resource, verb, name, files))
    return rows
