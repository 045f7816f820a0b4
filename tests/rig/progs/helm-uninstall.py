#!/usr/bin/env python3
"""helm-uninstall.py KUBECONFIG: what `helm uninstall cupcake` does."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "helm"))

import bootstrap  # noqa: E402

bootstrap.in_venv()

import chart as c  # noqa: E402
import helm_python  # noqa: E402

if len(sys.argv) != 2:
    sys.exit(__doc__)
with helm_python.Config(kubeconfig_path=sys.argv[1], namespace=c.NAMESPACE) as config:
    config.uninstall(c.RELEASE)
print(f"uninstalled: {c.RELEASE} from {c.NAMESPACE}")
