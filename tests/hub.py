"""A stand-in for the Hugging Face hub: the few addresses that its client calls, over files of a
test.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories by kind and id, each a directory; `gated` ids need a token. `cut` answers only
    so many bytes.
    """

    def __init__(
        self, repositories: dict[tuple[str, str], Path], gated: tuple[str, ...] = ()
    ) -> None:
        self.repositories, self.gated = repositories, gated
        self.cut: int | None = None
        self.sent: list[tuple[str, int]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        path = unquote(request.path.split("?")[0])
        api = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/(?:revision|tree)/(.+)", path)
        resolve = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if not (api or resolve):
            return self.refuse(request, 404, "EntryNotFound")
        kind = api[1] if api else (resolve[1] or "models/").rstrip("/")
        name, revision = (api[2], api[3]) if api else (resolve[2], resolve[3])
        folder = self.repositories.get((kind, name))
        if folder is None:
            return self.refuse(request, 404, "RepoNotFound")
        if name in self.gated and not request.headers.get("Authorization"):
            return self.refuse(request, 401, "GatedRepo")
        if revision.rstrip("/") not in (COMMIT, "main"):
            return self.refuse(request, 404, "RevisionNotFound")
        if resolve:
            return self.file(request, folder / resolve[4], body)
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        if "/tree/" in path:
            rows = [
                {
                    "type": "file",
                    "path": str(p.relative_to(folder)),
                    "size": p.stat().st_size,
                    "oid": self.tag(p),
                }
                for p in files
            ]
        else:
            rows = {
                "id": name,
                "sha": COMMIT,
                "siblings": [{"rfilename": str(p.relative_to(folder))} for p in files],
            }
        return self.send(
            request, 200, json.dumps(rows).encode(), {"Content-Type": "application/json"}, body
        )

    @staticmethod
    def tag(path: Path) -> str:
        return hashlib.sha1(path.read_bytes()).hexdigest()

    def file(self, request: BaseHTTPRequestHandler, path: Path, body: bool) -> None:
        if not path.is_file():
            return self.refuse(request, 404, "EntryNotFound")
        content = path.read_bytes()
        first = int(re.match(r"bytes=(\d+)-", request.headers.get("Range", "bytes=0-"))[1])
        headers = {"ETag": f'"{self.tag(path)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        if body:
            self.sent.append((path.name, first))
        return self.send(request, 206 if first else 200, content[first:], headers, body)

    def refuse(self, request: BaseHTTPRequestHandler, status: int, code: str) -> None:
        self.send(request, status, b"{}", {"X-Error-Code": code, "X-Error-Message": code}, True)

    def send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        content: bytes,
        headers: dict[str, str],
        body: bool,
    ) -> None:
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            request.send_header(name, value)
        request.end_headers()
        if not body:
            return
        if self.cut is not None and status in (200, 206) and len(content) > self.cut:
            request.wfile.write(content[: self.cut])
            request.wfile.flush()
            request.close_connection = True
            request.connection.close()
            return
        request.wfile.write(content)
