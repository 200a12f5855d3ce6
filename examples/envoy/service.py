"""A service without any access control of its own: Envoy passes on only what the guard admits."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Orders(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        # The guard has replaced whatever the caller sent under this name.
        client = self.headers.get("x-grantor-client-id", "an anonymous caller")
        body = f"{self.path} for {client}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Log nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", 8001), Orders).serve_forever()
