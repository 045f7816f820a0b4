#!/usr/bin/env python3
"""rights.py LOGS KUBECTL: every refusal that the logs below LOGS tell of, and whether the account has that right now.

An API server that has just started knows nobody's rights for some seconds: it refuses even kubeadm's own administrator. Such a refusal
is no fault of the chart. A right that is still missing is, and so is whatever an admission policy refused: exit 1. KUBECTL's
KUBECONFIG must be an administrator's.
"""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

# As the authorizer words it: `nodetasks.GROUP "cp2" is forbidden: User "U" cannot watch resource "nodetasks" in API group "G" at the cluster scope`.
REFUSED = re.compile(
    r'(?:"(?P<name>[^" ]+)" )?is forbidden: User "(?P<user>[^"]+)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" '
    r'in API group "(?P<group>[^"]*)"(?: in the namespace "(?P<namespace>[^"]+)")?')
PATH = re.compile(r'is forbidden: User "(?P<user>[^"]+)" cannot (?P<verb>\w+) path "(?P<path>[^"]+)"')


def question(line):
    """The arguments of `kubectl auth can-i` for a line that tells of a refusal by roles; nothing for any other refusal."""
    plain = line.replace("\\", "")
    if found := REFUSED.search(plain):
        resource, _, part = found["resource"].partition("/")
        what = f"{resource}.{found['group']}" if found["group"] else resource
        asked = [found["verb"], f"{what}/{found['name']}" if found["name"] else what, f"--as={found['user']}"]
        asked += [f"--subresource={part}"] if part else []
        return (*asked, f"--namespace={found['namespace']}" if found["namespace"] else "--all-namespaces")
    if found := PATH.search(plain):
        return (found["verb"], found["path"], f"--as={found['user']}")
    return None


def main(logs, kubectl):
    asked, others = Counter(), Counter()
    for file in sorted(Path(logs).rglob("*.log")):
        for line in file.read_text(errors="replace").splitlines():
            if "forbidden" not in line.lower():
                continue
            if wanted := question(line):
                asked[wanted] += 1
            else:
                others[line[:400]] += 1
    for line, times in others.items():
        print(f"refused {times} times, not by roles: {line}")
    missing = bool(others)
    for wanted, times in asked.items():
        told = subprocess.run([kubectl, "auth", "can-i", *wanted], capture_output=True, text=True, check=False)
        has = told.returncode == 0 and told.stdout.strip() == "yes"
        missing = missing or not has
        why = "it has that right: the API server had just started" if has else f"it LACKS that right {told.stderr.strip()}"
        print(f"refused {times} times: {' '.join(wanted)}; {why}")
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
