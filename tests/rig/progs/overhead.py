#!/usr/bin/env python3
"""overhead.py WALL NODE-runner.log...: what the programs that the runners started took on each node, from the runners' logs, and WALL, the
seconds of the whole upgrade, as a ratio of their sum. What has no end in a log (killed, power cut) counts until the next line of its node."""

import datetime
import json
import os
import re
import sys
from collections import defaultdict

# Journal line: time, host, unit[pid]: the runner's own line as JSON.
LINE = re.compile(r"\S+ \S+ \S+\[\d+\]: (\{.*\})$")
NAMES = re.compile(r"^(begins|ended|failed): (.*)$", re.S)


def spans(path):
    """(program, command, seconds) of each program of a log, and when the first began and the last ended."""
    found, opened, first, last = [], {}, None, None
    with open(path, errors="replace") as file:
        for line in file:
            if not (match := LINE.search(line)):
                continue
            try:
                told = json.loads(match[1])
                at = datetime.datetime.fromisoformat(told["timestamp"].replace("Z", "+00:00"))
            except (ValueError, KeyError):
                continue
            fields = told.get("fields", {})
            said = NAMES.match(fields.get("message", ""))
            program = fields.get("program")
            if not said or not program:
                continue
            first, last = first or at, at
            if said[1] == "begins":
                opened[program] = (said[2], at)
            elif program in opened:
                command, began = opened.pop(program)
                found.append((program, command, (at - began).total_seconds()))
    for program, (command, began) in opened.items():
        found.append((program, command, max(0.0, (last - began).total_seconds())))
    return found, first, last


def main(wall, *logs):
    whole = 0.0
    print("programs on the nodes (node, seconds of all, seconds of each program, from the first to the last):")
    for path in logs:
        found, first, last = spans(path)
        each = defaultdict(float)
        for program, command, seconds in found:
            words = [word for word in command.split() if not word.startswith("-")]
            each[" ".join(words[:3] if program == "kubeadm" else words[:2]) if program in ("apt-get", "kubeadm") else program] += seconds
        total = sum(each.values())
        whole += total
        node = os.path.basename(path).removesuffix("-runner.log")
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in sorted(each.items(), key=lambda pair: -pair[1])[:8])
        between = (last - first).total_seconds() if first else 0.0
        print(f"  {node:4} {total:7.1f}  {parts}; {between:.0f} s")
    wall = float(wall)
    if whole:
        print(f"all programs {whole:.1f} s, the upgrade {wall:.1f} s: a ratio of {wall / whole:.2f}, drains, moves of pods, soaks and waits included")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
