"""A model hub on loopback, as far as huggingface_hub needs one to upload a folder and fetch it."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


class Hub(BaseHTTPRequestHandler):
    """Repositories of files in memory, each with one commit; the server's `repos` has them."""

    server: Any
    protocol_version = "HTTP/1.1"

    def answer(self, value: object, status: int = 200, **headers: str) -> None:
        """Bytes as they are, all else as JSON."""
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        owner, name, *rest = path.removeprefix("api/models/").split("/")
        files: Files | None = self.server.repos.get(f"{owner}/{name}")
        if files is None:
            return self.answer(b"", 404, X_Error_Code="RepoNotFound")
        if not path.startswith("api/"):
            content = files.get("/".join(rest[2:]))
            if content is None:
                return self.answer(b"", 404, X_Error_Code="EntryNotFound")
            return self.answer(content, ETag=f'"{sha1(content)}"', X_Repo_Commit=commit_of(files))
        if rest[:1] == ["tree"]:
            return self.answer([
                {"type": "file", "path": path, "size": len(content), "oid": sha1(content)}
                for path, content in files.items()
            ])  # fmt: skip
        siblings = [{"rfilename": path} for path in files]
        found = {"id": f"{owner}/{name}", "sha": commit_of(files), "siblings": siblings}
        return self.answer(found)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path).strip("/")
        if path == "api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.repos.setdefault(name, {})
            return self.answer({"url": f"{self.server.address}/{name}"})
        if path == "api/validate-yaml":  # of a model card
            return self.answer({"errors": [], "warnings": []})
        name = "/".join(path.split("/")[2:4])
        files: Files = self.server.repos[name]
        if "/preupload/" in path:
            return self.answer({"files": [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]})  # fmt: skip
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        url = f"{self.server.address}/{name}/commit/{commit_of(files)}"
        return self.answer({"commitUrl": url, "commitOid": commit_of(files)})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Prints nothing."""


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def commit_of(files: Files) -> str:
    """A commit's name, from what it holds."""
    return sha1(repr(sorted(files.items())).encode())


@contextmanager
def hub_on_loopback() -> Iterator[tuple[str, dict[str, Files]]]:
    """The address of a hub on this machine, and its repositories."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.repos, server.daemon_threads = {}, True
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.address, server.repos
    finally:
        server.shutdown()
        server.server_close()
