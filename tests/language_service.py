"""A local OpenAI-compatible server whose answers and faults a test decides."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: A fault handles a request itself and returns True, or leaves it to the ordinary answer.
Fault = Callable[[BaseHTTPRequestHandler], bool]


class Refusal(Exception):  # noqa: N818
    """An answer with an error, as a reply raises it and as a line of a batch has it."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(status, body)
        self.status, self.body = status, body


def completion(content: str | None, **more: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    return {
        "id": "x", "object": "chat.completion", "model": "served-model", "system_fingerprint": "fp",
        "choices": [{"index": 0, "finish_reason": "stop",
        "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5}, **more,
    }  # fmt: skip


class LanguageService:
    """Answers `reply` of a request's body; `faults` are taken one for each request until there are
    none left.

    ``bodies`` are the requests that arrived, ``billed`` counts full answers by idempotency key; a
    key is billed once, as a server does that knows the header. ``batches`` holds what was submitted
    by batch.
    """

    def __init__(
        self,
        reply: Callable[[dict[str, Any]], str | None],
        faults: Iterator[Fault | None] | None = None,
    ):
        self.reply, self.faults = reply, faults if faults is not None else iter(())
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.billed: Counter[str] = Counter()
        self.files: dict[str, str] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.batch_done = False
        self.most_in_flight = self._in_flight = 0
        self._guard = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                service.post(self)

            def do_GET(self) -> None:
                service.get(self)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: object) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> LanguageService:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def post(self, request: BaseHTTPRequestHandler) -> None:
        raw = request.rfile.read(int(request.headers["Content-Length"]))
        if request.path.endswith("/files"):
            return self.upload(request, raw)
        body = json.loads(raw)
        if request.path.endswith("/batches"):
            return self.submit(request, body)
        with self._guard:
            self.bodies.append(body)
            self.headers.append({k.title(): v for k, v in request.headers.items()})
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            fault = next(self.faults, None)
        try:
            if fault is not None and fault(request):
                return None
            try:
                content = completion(self.reply(body))
            except Refusal as refusal:
                return send(request, refusal.status, refusal.body)
            with self._guard:
                key = request.headers.get("Idempotency-Key", "")
                self.billed[key] += not self.billed[key]
            return send(request, 200, content)
        finally:
            with self._guard:
                self._in_flight -= 1

    def get(self, request: BaseHTTPRequestHandler) -> None:
        if "/files/" in request.path:
            content = self.files[request.path.split("/files/")[1].split("/")[0]].encode()
            return send_bytes(request, 200, content, {"Content-Type": "application/octet-stream"})
        if request.path.partition("?")[0].endswith("/batches"):
            listed = {"object": "list", "data": [*self.batches.values()][::-1], "has_more": False}
            return send(request, 200, listed)
        batch = self.batches[request.path.rsplit("/", 1)[-1]]
        if self.batch_done and batch["status"] == "in_progress":
            self.finish(batch)
        return send(request, 200, batch)

    def upload(self, request: BaseHTTPRequestHandler, raw: bytes) -> None:
        content = raw.decode()
        lines = [line for line in content.splitlines() if line.startswith("{")]
        name = f"file-{len(self.files)}"
        self.files[name] = "\n".join(lines)
        about = {
            "id": name,
            "object": "file",
            "bytes": len(raw),
            "created_at": 0,
            "filename": "requests.jsonl",
        }
        send(request, 200, about | {"purpose": "batch", "status": "processed"})

    def submit(self, request: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        name = f"batch-{len(self.batches)}"
        self.batches[name] = {
            "id": name, "object": "batch", "endpoint": body["endpoint"],
            "input_file_id": body["input_file_id"],
            "completion_window": "24h", "status": "in_progress", "created_at": 0,
            "metadata": body.get("metadata"),
        }  # fmt: skip
        send(request, 200, self.batches[name])

    def finish(self, batch: dict[str, Any]) -> None:
        """Answer a batch; a fault for a line makes it an error: a refusal, else one of 500."""
        good, bad = [], []
        for line in self.files[batch["input_file_id"]].splitlines():
            row = json.loads(line)
            fault = next(self.faults, None)
            failed = fault is not None
            response = {"status_code": 500 if failed else 200, "body": {}}
            if isinstance(fault, Refusal):
                response = {"status_code": fault.status, "body": fault.body}
            elif not failed:
                self.billed[row["custom_id"]] += 1
                response["body"] = completion(self.reply(row["body"]))
            (bad if failed else good).append(
                json.dumps({"custom_id": row["custom_id"], "response": response})
            )
        for kind, lines in (("output_file_id", good), ("error_file_id", bad)):
            if lines:
                batch[kind] = f"file-{len(self.files)}"
                self.files[batch[kind]] = "\n".join(lines)
        batch["status"] = "completed"


def send_bytes(
    request: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str]
) -> None:
    request.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(content))}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(content)


def send(request: BaseHTTPRequestHandler, status: int, value: Any, **headers: str) -> None:
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    send_bytes(
        request, status, json.dumps(value).encode(), {"Content-Type": "application/json", **names}
    )


# ------------------------------------------------------------------------------------------- faults


def status(code: int, **headers: str) -> Fault:
    """An error response."""

    def fault(request: BaseHTTPRequestHandler) -> bool:
        send(request, code, {"error": {"message": f"fault {code}"}}, **headers)
        return True

    return fault


def error(code: int, message: str, kind: str | None = None, **more: Any) -> Fault:
    """An error response with words and a code."""

    def fault(request: BaseHTTPRequestHandler) -> bool:
        send(request, code, {"error": {"message": message, "code": kind, **more}})
        return True

    return fault


def truncated(request: BaseHTTPRequestHandler) -> bool:
    """A body that ends early."""
    request.send_response(200)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", "5000")
    request.end_headers()
    request.wfile.write(b'{"choices": [')
    request.wfile.flush()
    request.connection.close()
    request.close_connection = True
    return True


def hung(seconds: float) -> Fault:
    """A connection on which nothing comes."""

    def fault(request: BaseHTTPRequestHandler) -> bool:
        time.sleep(seconds)
        request.close_connection = True
        return True

    return fault


def invalid_json(request: BaseHTTPRequestHandler) -> bool:
    """A 200 that is no JSON."""
    send_bytes(request, 200, b"<html>busy</html>", {"Content-Type": "application/json"})
    return True


def empty_choices(request: BaseHTTPRequestHandler) -> bool:
    """A completion without a choice."""
    send(request, 200, completion("x", choices=[]))
    return True


def refuses_schemas(request: BaseHTTPRequestHandler) -> bool:
    """What a server does that knows no response_format."""
    send(request, 400, {"error": {"message": "response_format is not supported"}})
    return True
