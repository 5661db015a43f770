"""A small Hugging Face hub on this machine, which huggingface_hub itself reads and writes.

It keeps one state of each model. Files come with the commit itself, as small ones do on the hub.
"""

import base64
import hashlib
import json
from contextlib import contextmanager

from helpers.web import Silent, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub():
    """Give the address of a hub and its models: the files of each, by name, as bytes."""
    models = {}

    class Hub(Silent):
        protocol_version = "HTTP/1.1"

        def answer(self, content, status=200, **headers):
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": len(body), **headers}.items():
                self.send_header(name.replace("_", "-"), str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_POST(self):  # noqa: N802
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = self.path.partition("?")[0].strip("/").split("/")
            if self.headers.get("Authorization") != "Bearer hf_right":
                self.answer({"error": "Invalid username or password."}, 401)
            elif parts[:3] == ["api", "repos", "create"]:
                wanted = json.loads(body)
                name = f"{wanted['organization']}/{wanted['name']}"
                models.setdefault(name, {})
                self.answer({"url": name, "name": name})
            elif parts[-1] == "validate-yaml":
                self.answer({"errors": [], "warnings": []})
            elif parts[-2] == "preupload":
                self.answer({"files": [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in json.loads(body)["files"]
                ]})  # fmt: skip
            else:
                files = models["/".join(parts[2:4])]
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        content = base64.b64decode(line["value"]["content"])
                        files[line["value"]["path"]] = content
                page = f"http://{self.headers['Host']}/{'/'.join(parts[2:4])}/commit/{COMMIT}"
                self.answer({"commitUrl": page, "commitOid": COMMIT})

        def do_GET(self):  # noqa: N802
            parts = self.path.partition("?")[0].strip("/").split("/")
            name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
            if name not in models:
                self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            elif "tree" in parts:
                self.answer([
                    {"type": "file", "path": file, "size": len(content),
                     "oid": hashlib.sha1(content).hexdigest()}
                    for file, content in models[name].items()
                ])  # fmt: skip
            elif parts[0] == "api":
                siblings = [{"rfilename": file} for file in models[name]]
                self.answer({"id": name, "sha": COMMIT, "siblings": siblings})
            else:
                content = models[name][parts[-1]]
                tag = hashlib.sha256(content).hexdigest()
                self.answer(content, ETag=f'"{tag}"', X_Repo_Commit=COMMIT)

        do_HEAD = do_GET  # noqa: N815

    with serving(Hub) as address:
        yield address, models
