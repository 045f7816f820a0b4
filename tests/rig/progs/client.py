#!/usr/bin/env python3
"""client.py OUT URL...: asks the URLs in turn, five times a second, until SIGTERM; then writes to OUT how many requests there were, how
many failed, and when and how."""

import http.client
import json
import signal
import sys
import time
import urllib.request

GAP_SECONDS = 0.2
TIMEOUT_SECONDS = 2
TOLD_MAX = 50


def main(out, *urls):
    asked, failed, told, longest, failing_since = 0, 0, [], 0.0, None
    over = []
    signal.signal(signal.SIGTERM, lambda *_: over.append(True))
    began = time.monotonic()
    while not over:
        url, at = urls[asked % len(urls)], time.monotonic()
        asked += 1
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
                answer.read()
            failing_since = None
        except (OSError, http.client.HTTPException) as error:
            failed += 1
            failing_since = at if failing_since is None else failing_since
            longest = max(longest, time.monotonic() - failing_since)
            if len(told) < TOLD_MAX:
                told.append({"after": round(at - began, 1), "url": url, "error": str(error)})
        time.sleep(max(0.0, at + GAP_SECONDS - time.monotonic()))
    with open(out, "w") as file:
        json.dump({"requests": asked, "failed": failed, "longestFailureSeconds": round(longest, 1), "told": told}, file, indent=1)


main(*sys.argv[1:])
