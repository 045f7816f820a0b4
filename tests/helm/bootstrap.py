"""Runs the calling script in a virtual environment with what requirements.txt names; makes that on first use.

It lies in the user's cache and may be deleted at any time. A changed requirements.txt makes a new one.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def in_venv() -> None:
    """Returns inside the environment; before that, replaces this process by one that is inside."""
    cache = Path(os.environ.get("CUPCAKE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cupcake")
    root = cache / "helm-venv"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    venv, stamp = root / wanted[:12], root / wanted[:12] / "complete"
    python = venv / "bin" / "python"
    if Path(sys.prefix) == venv:
        return
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists():
            print(f"making {venv} (once)", file=sys.stderr)
            subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", REQUIREMENTS]
            if subprocess.run(pip).returncode != 0:
                sys.exit("the packages of tests/helm/requirements.txt cannot be installed: is there a package index that pip can reach?")
            stamp.touch()
    os.execv(python, [str(python), *sys.argv])
