"""A bucket of Google Cloud Storage in memory, over HTTP: what gcsfs and tensorstore ask of one.

Objects only; the JSON API's uploads (media, multipart, resumable), downloads, listings, copies,
single and batched deletions, and the condition that a generation matches. Reference:
cloud.google.com/storage/docs/json_api.
"""

import base64
import contextlib
import email
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote, urlsplit

ENVIRONMENT = ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL")


class Bucket:
    """Objects by name: content and generation; `calls` is what was asked, in order."""

    def __init__(self, name: str, status: int = 200) -> None:
        self.name, self.status = name, status
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.uploads: dict[str, tuple[str, bytearray]] = {}
        self.calls: list[str] = []
        self.generation = 1000
        self.lock = threading.Lock()

    def put(self, name: str, content: bytes) -> dict:
        self.generation += 1
        self.objects[name] = (content, self.generation)
        return self.describe(name)

    def describe(self, name: str) -> dict:
        content, generation = self.objects[name]
        now = "2026-01-01T00:00:00.000Z"
        return {
            "kind": "storage#object",
            "bucket": self.name,
            "name": name,
            "size": str(len(content)),
            "generation": str(generation),
            "metageneration": "1",
            "updated": now,
            "timeCreated": now,
            "contentType": "application/octet-stream",
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
        }

    def listing(self, query: dict[str, str]) -> dict:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        start, end = query.get("startOffset", ""), query.get("endOffset")
        items, prefixes = [], set()
        for name in sorted(self.objects):
            if not name.startswith(prefix) or name < start or (end and name >= end):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                items.append(self.describe(name))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}


def handler_of(bucket: Bucket) -> type[http.server.BaseHTTPRequestHandler]:
    """The requests of one bucket."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self._answer("GET")

        do_HEAD = do_GET

        def do_POST(self):
            self._answer("POST")

        def do_PUT(self):
            self._answer("PUT")

        def do_DELETE(self):
            self._answer("DELETE")

        def log_message(self, *_):
            pass

        def _answer(self, method):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with bucket.lock:
                bucket.calls.append(f"{method} {self.path}")
                if bucket.status != 200:
                    self._send(bucket.status, {"error": {"code": bucket.status}})
                elif self.path.startswith("/batch/"):
                    self._batch(body)
                else:
                    self._send(*self._one(method, self.path, body))

        def _one(self, method, path, body):
            """Status, content and headers of one request."""
            url = urlsplit(path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            parts = [unquote(part) for part in url.path.strip("/").split("/")]
            if parts[0] in ("upload", "resumable"):
                return self._upload(query, body)
            if parts[0] == "download":
                parts = parts[1:]
            if parts[:3] != ["storage", "v1", "b"] or parts[3] != bucket.name:
                return 404, {"error": {"code": 404, "message": "no such bucket"}}, {}
            if len(parts) == 4:
                return 200, {"kind": "storage#bucket", "name": bucket.name}, {}
            if len(parts) == 5:
                return 200, bucket.listing(query), {}
            name = parts[5]
            wanted = query.get("ifGenerationMatch")
            if wanted is not None and int(wanted) != bucket.objects.get(name, (b"", 0))[1]:
                return 412, {"error": {"code": 412}}, {}
            if name not in bucket.objects:
                return 404, {"error": {"code": 404, "message": "no such object"}}, {}
            content, generation = bucket.objects[name]
            if method == "DELETE":
                del bucket.objects[name]
                return 204, b"", {}
            if "rewriteTo" in parts:
                return 200, {"done": True, "resource": bucket.put(parts[-1], content)}, {}
            if query.get("alt") != "media":
                return 200, bucket.describe(name), {}
            head = {"x-goog-generation": str(generation), "X-Goog-Hash": ""}
            asked = self.headers.get("Range")
            if not asked:
                return 200, content, head
            first, _, last = asked.removeprefix("bytes=").partition("-")
            stop = int(last) + 1 if last else len(content)
            head["Content-Range"] = f"bytes {first}-{stop - 1}/{len(content)}"
            return 206, content[int(first) : stop], head

        def _upload(self, query, body):
            kind = query.get("uploadType")
            if kind == "media":
                wanted = query.get("ifGenerationMatch")
                held = bucket.objects.get(query["name"], (b"", 0))[1]
                if wanted is not None and int(wanted) != held:
                    return 412, {"error": {"code": 412}}, {}
                return 200, bucket.put(query["name"], body), {}
            if kind == "multipart":
                boundary = self.headers["Content-Type"].split("boundary=")[1].strip("\"'").encode()
                _, meta, data, _ = body.split(b"--" + boundary)
                name = json.loads(
                    meta.split(b"\n\n" if b"\r\n\r\n" not in meta else b"\r\n\r\n")[1]
                )
                content = data.split(b"\n\n" if b"\r\n\r\n" not in data else b"\r\n\r\n", 1)[1]
                end = 2 if content.endswith(b"\r\n") else 1
                return 200, bucket.put(name["name"], content[:-end]), {}
            if kind == "resumable":  # begins; the content follows at the address it gets
                key = str(len(bucket.uploads))
                name = query.get("name") or json.loads(body)["name"]
                bucket.uploads[key] = (name, bytearray())
                host = self.headers["Host"]
                return 200, b"", {"Location": f"http://{host}/resumable?upload_id={key}"}
            name, held = bucket.uploads[query["upload_id"]]
            held += body
            if self.headers.get("Content-Range", "").endswith("/*"):
                return 308, b"", {"Range": f"bytes=0-{len(held) - 1}"}
            return 200, bucket.put(name, bytes(held)), {}

        def _batch(self, body):
            """Several requests in one, each a part of a multipart body."""
            kind = self.headers["Content-Type"]
            whole = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
            answers = []
            for part in whole.get_payload():
                method, path, *_ = part.get_payload().split()
                status, _, _ = self._one(method, urlsplit(path).path, b"")
                answers.append(
                    "--parts\r\nContent-Type: application/http\r\n"
                    f"Content-ID: <response-{part['Content-ID'].strip('<>')}>\r\n\r\n"
                    f"HTTP/1.1 {status} OK\r\nContent-Length: 0\r\n\r\n\r\n"
                )
            text = "".join(answers) + "--parts--\r\n"
            self._send(200, text.encode(), {"Content-Type": "multipart/mixed; boundary=parts"})

        def _send(self, status, content, head=None):
            if isinstance(content, dict):
                head = {"Content-Type": "application/json"} | (head or {})
                content = json.dumps(content).encode()
            self.send_response(status)
            for name, value in (head or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    return Handler


@contextlib.contextmanager
def serving(bucket: Bucket) -> Iterator[dict[str, str]]:
    """Serve a bucket; yields the environment in which a process finds it."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler_of(bucket))
    # Clients that have what they want hang up.
    server.handle_error = lambda *_: None
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        # No credentials, and no question by gRPC whether the bucket has folders of its own.
        without = {"FSSPEC_GCS_TOKEN": "anon", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
        yield dict.fromkeys(ENVIRONMENT, address) | without
    finally:
        server.shutdown()
        server.server_close()
