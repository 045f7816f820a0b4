#!/usr/bin/env python3
"""image.py OUT.tar NAME:TAG ROOT [ENTRYPOINT...]: writes the folder ROOT as an image of one layer (docker-archive).

The same content gives the same bytes: owners, times and order are fixed. tests/images uses `write` for images of our own.
"""

import hashlib
import io
import json
import os
import sys
import tarfile

EPOCH = "2025-01-01T00:00:00Z"


def plain(entry):
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def write_layer(path, root):
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as layer:
        for name in sorted(os.listdir(root)):
            layer.add(os.path.join(root, name), arcname=name, filter=plain)
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def add(archive, name, content):
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def main(out, name, root, *entrypoint):
    config = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "WorkingDir": "/"}
    if entrypoint:
        config["Entrypoint"] = list(entrypoint)
    write(out, name, root, config)


def write(out, name, root, config, architecture="amd64"):
    """The folder as an image with that configuration."""
    layer = out + ".layer"
    diff = write_layer(layer, root)
    image = json.dumps({
        "architecture": architecture, "os": "linux", "created": EPOCH, "config": config,
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + diff]}, "history": [{"created": EPOCH}],
    }).encode()
    image_name = hashlib.sha256(image).hexdigest() + ".json"
    manifest = json.dumps([{"Config": image_name, "RepoTags": [name], "Layers": [diff + "/layer.tar"]}]).encode()
    with tarfile.open(out + ".part", "w") as archive:
        add(archive, image_name, image)
        add(archive, "manifest.json", manifest)
        entry = tarfile.TarInfo(diff + "/layer.tar")
        entry.size = os.path.getsize(layer)
        with open(layer, "rb") as f:
            archive.addfile(entry, f)
    os.unlink(layer)
    os.rename(out + ".part", out)


if __name__ == "__main__":
    main(*sys.argv[1:])
