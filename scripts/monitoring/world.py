"""What stands around the gateway: services, an issuer, a service that decides, and clients. Standard library alone."""

import http.client
import http.server
import json
import random
import socket
import ssl
import threading
import time

# The public key of RFC 7515, A.3: an issuer needs one, and nobody signs with it here.
JWKS = {"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                  "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}

# Below those that the kernel gives by itself: nobody comes by one of these before it is used.
PORTS = iter(random.sample(range(12_000, 32_000), 1_000))


def free_port():
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError("no port is free")


class Service(http.server.ThreadingHTTPServer):
    """Answers everything with one status; /jwks and what is asked by POST as an issuer would."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, status):
        self.status = status
        super().__init__(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        """A connection that the gateway has ended is nothing to tell."""

    @property
    def address(self):
        return f"127.0.0.1:{self.server_port}"


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply(self.server.status, JWKS if self.path == "/jwks" else {"path": self.path})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.reply(200, {"active": True, "sub": "alice", "exp": int(time.time()) + 600})

    def reply(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def get(address, path, headers=(), timeout=5):
    """Status and body; None and nothing where there was no answer."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.read().decode()
    except OSError:
        return None, ""
    finally:
        connection.close()


def handshake(address):
    """One by TLS, and one by something else."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 5) as plain, context.wrap_socket(plain, server_hostname="www.example.com"):
        pass
    with socket.create_connection((host, int(port)), 5) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        plain.recv(64)


class Load:
    """Asks for everything, over and over, until it is told to stop."""

    def __init__(self, http_address, https_address, requests):
        self.stopped = threading.Event()
        self.error = None
        self.answered = 0
        self.thread = threading.Thread(target=self.run, args=(http_address, https_address, requests), daemon=True)
        self.thread.start()

    def run(self, http_address, https_address, requests):
        try:
            while not self.stopped.is_set():
                for path, headers in requests:
                    status, _ = get(http_address, path, headers)
                    self.answered += status is not None
                handshake(https_address)
                self.stopped.wait(0.02)
        except OSError as error:
            self.error = error

    def stop(self):
        self.stopped.set()
        self.thread.join(30)
