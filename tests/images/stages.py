"""The last stages of the Dockerfile, as far as they are what an image consists of. Anything else in them is refused by name."""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "Dockerfile"


@dataclass
class Stage:
    """An image: which program of the build lies where, who runs it, and what is said of it."""

    files: dict = field(default_factory=dict)  # path in the image -> name of the program
    labels: dict = field(default_factory=dict)
    user: str = ""
    entrypoint: list = field(default_factory=list)

    def config(self):
        """As an image's configuration says it."""
        return {"User": self.user, "Entrypoint": self.entrypoint, "Labels": self.labels, "WorkingDir": "/"}


def instructions(text):
    """(word, rest) of each instruction, comments and continued lines resolved."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    for line in filter(str.strip, joined.splitlines()):
        word, _, rest = line.strip().partition(" ")
        yield word.upper(), rest.strip()


def stages(text=None):
    """Name -> Stage of every stage that begins from nothing."""
    found, now = {}, None
    for word, rest in instructions(DOCKERFILE.read_text() if text is None else text):
        if word == "FROM":
            source, _, name = rest.partition(" AS ")
            now = found.setdefault(name, Stage()) if source == "scratch" else None
        elif now is None:
            continue
        elif word == "LABEL":
            now.labels.update(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "USER":
            now.user = rest
        elif word == "ENTRYPOINT":
            now.entrypoint = json.loads(rest)
        elif word == "COPY" and (match := re.fullmatch(r"--from=build /out/(\S+) (/\S+)", rest)):
            now.files[match[2]] = match[1]
        else:
            raise ValueError(f"Dockerfile: tests/images does not know what `{word} {rest}` puts into an image: teach it, or leave it out")
    return found
