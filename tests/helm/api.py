"""A small client of one API server, as whoever has a token, or whom an administrator stands in for."""

import base64
import http.client
import json
import ssl
from urllib.parse import urlsplit

import yaml

GROUP = "cupcake.ricardomolendijk.com"
OURS = f"/apis/{GROUP}/v1"


class Answer:
    """Status and body of an answer."""

    def __init__(self, code, body):
        self.code, self.body = code, body

    @property
    def message(self):
        return self.body.get("message", "") if isinstance(self.body, dict) else str(self.body)

    def __repr__(self):
        return f"{self.code} {self.message[:600]}"


class Api:
    """One connection, one identity."""

    def __init__(self, kubeconfig, token=None, user=None, groups=()):
        config = yaml.safe_load(open(kubeconfig))
        cluster = config["clusters"][0]["cluster"]
        self.kubeconfig, self.host = kubeconfig, urlsplit(cluster["server"])
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.context = ssl.create_default_context(cadata=authority)
        # An administrator without a token of one's own; `user` and `groups` are whom that one stands in for.
        self.headers = [("Authorization", f"Bearer {token or config['users'][0]['user']['token']}"), ("Accept", "application/json")]
        if user:
            self.headers.append(("Impersonate-User", user))
            self.headers += [("Impersonate-Group", group) for group in [*groups, "system:authenticated"]]
        self.connection = None

    def call(self, method, path, body=None, content_type="application/json"):
        if self.connection is None:
            self.connection = http.client.HTTPSConnection(self.host.hostname, self.host.port, context=self.context, timeout=30)
        self.connection.putrequest(method, path)
        data = None if body is None else json.dumps(body).encode()
        for name, value in self.headers:
            self.connection.putheader(name, value)
        if data is not None:
            self.connection.putheader("Content-Type", content_type)
            self.connection.putheader("Content-Length", str(len(data)))
        self.connection.endheaders(data)
        response = self.connection.getresponse()
        text = response.read().decode()
        try:
            return Answer(response.status, json.loads(text))
        except ValueError:
            return Answer(response.status, text)

    def get(self, path):
        return self.call("GET", path)

    def create(self, path, body):
        return self.call("POST", path, body)

    def replace(self, path, body):
        return self.call("PUT", path, body)

    def merge(self, path, body):
        return self.call("PATCH", path, body, "application/merge-patch+json")

    def json_patch(self, path, *operations):
        return self.call("PATCH", path, list(operations), "application/json-patch+json")

    def delete(self, path):
        return self.call("DELETE", path)
