"""Kaggle as its client meets it, behind a hospital's proxy: real TLS, a certificate authority of
our own, redirects to a store, ranges, checksums, and every refusal.

The server is an HTTP proxy: CONNECT to any host is answered by itself with a certificate for
that host, as proxies do that look into connections.
"""

import base64
import datetime
import hashlib
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOSTS = ("api.kaggle.com", "www.kaggle.com", "storage.googleapis.com", "download.pytorch.org")


@dataclass
class Kaggle:
    """What the server holds and how it behaves; tests change it while it runs."""

    archive: bytes
    authority: Path  # PEM of the certificate authority
    address: str = ""  # HOST:PORT of the proxy
    version: int = 3
    statuses: dict[str, int] = field(default_factory=dict)  # method of the API → HTTP status
    cuts: list[int] = field(default_factory=list)  # bytes after which a download is cut, in order
    damaged: int = 0  # how many downloads arrive with a flipped byte
    password: str = ""  # USER:PASSWORD that the proxy asks for
    requests: list[str] = field(default_factory=list)  # "METHOD /path [range]", as they came
    authorizations: list[str] = field(default_factory=list)  # of calls to the API

    @property
    def proxy(self) -> str:
        user = f"{self.password}@" if self.password else ""
        return f"http://{user}{self.address}"

    def environment(self) -> dict[str, str]:
        """What a person in this network would set."""
        return {"HTTPS_PROXY": self.proxy, "HTTP_PROXY": self.proxy, "NO_PROXY": ""}


@contextmanager
def kaggle(folder: Path, archive: bytes, host: str = "127.0.0.1") -> Iterator[Kaggle]:
    """Run the server until the block ends. `folder` takes its certificates."""
    chain = _certificates(folder)
    state = Kaggle(archive, folder / "authority.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain)
    server = _Server((host, 0), _Handler)
    server.state, server.context = state, context
    state.address = f"{host}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    state: Kaggle
    context: ssl.SSLContext

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        return

    def do_CONNECT(self) -> None:
        state = self.server.state
        wanted = "Basic " + base64.b64encode(state.password.encode()).decode()
        if state.password and self.headers.get("Proxy-Authorization") != wanted:
            self.send_response(407)
            self.send_header("Proxy-Authenticate", 'Basic realm="proxy"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response_only(200)
        self.end_headers()
        self.connection = self.server.context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", 0)
        self.close_connection = False  # http.client asks with HTTP/1.0

    def do_HEAD(self) -> None:
        self._answer(200, {})

    def do_POST(self) -> None:
        state = self.server.state
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        method = self.path.rsplit("/", 1)[1]
        state.requests.append(f"POST {method}")
        state.authorizations.append(self.headers.get("Authorization", ""))
        if status := state.statuses.get(method):
            self._answer(
                status,
                {"Retry-After": "30"} if status == 429 else {},
                {"code": status, "message": f"refused with {status}"},
            )
        elif method == "GetDataset":
            self._answer(200, {}, {"currentVersionNumber": state.version, "ref": asked})
        else:
            place = (
                "https://storage.googleapis.com/kaggle-data-sets/archive.zip?X-Goog-Signature=ab"
            )
            self._answer(302, {"Location": place})

    def do_GET(self) -> None:
        state, content = self.server.state, self.server.state.archive
        asked = self.headers.get("Range", "")
        state.requests.append(f"GET {self.path.split('?')[0]} {asked}".strip())
        assert "Authorization" not in self.headers, "the store must not see Kaggle's credentials"
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        digest = base64.b64encode(hashlib.md5(content).digest()).decode()
        body = content[start:]
        # kagglehub looks at the first answer of the store and leaves it unread when it resumes.
        resumes = asked or not state.cuts or len(state.requests) < 4
        if state.damaged and body:
            state.damaged -= 1
            body = bytes([body[0] ^ 1]) + body[1:]
        cut = state.cuts.pop(0) if state.cuts and resumes else None
        self.send_response(206 if asked else 200)
        self.send_header("Content-Type", "application/zip")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("x-goog-hash", f"crc32c=AAAAAA==,md5={digest}")
        self.end_headers()
        self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True

    def _answer(self, status: int, headers: dict[str, str], content: Any = None) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if content is not None:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _certificates(folder: Path) -> Path:
    """Write authority.pem, and server.pem (key and certificate signed by it); return the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)

    def certificate(name: str, issuer: str, key: Any, signer: Any, **more: Any) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
            )
        )
        if name == issuer:
            usage = dict.fromkeys(
                (
                    "content_commitment",
                    "key_encipherment",
                    "data_encipherment",
                    "key_agreement",
                    "encipher_only",
                    "decipher_only",
                ),
                False,
            )
            usage |= dict.fromkeys(("digital_signature", "key_cert_sign", "crl_sign"), True)
            builder = builder.add_extension(x509.KeyUsage(**usage), True)
        else:
            names = [x509.DNSName(host) for host in HOSTS]
            local = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([*names, local]), False)
        return builder.sign(signer, hashes.SHA256())

    signer, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = certificate("Hospital CA", "Hospital CA", signer, signer)
    server = certificate("proxy", "Hospital CA", key, signer)
    pem = serialization.Encoding.PEM
    (folder / "authority.pem").write_bytes(authority.public_bytes(pem))
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(private + server.public_bytes(pem))
    return folder / "server.pem"
