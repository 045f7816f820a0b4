#!/usr/bin/env python3
"""repo-server.py ADDRESS FOLDER CERTIFICATE KEY: serves FOLDER over https on port 443 of ADDRESS, as pkgs.k8s.io would.

Each connection has a thread of its own and makes its TLS handshake there, so a client that says nothing delays nobody.
"""

import functools
import http.server
import ssl
import sys


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def finish_request(self, request, client_address):
        request.settimeout(30)
        with TLS.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)


address, folder, certificate, key = sys.argv[1:]
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
TLS.load_cert_chain(certificate, key)
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
http.server.SimpleHTTPRequestHandler.protocol_version = "HTTP/1.1"
Server((address, 443), handler).serve_forever()
