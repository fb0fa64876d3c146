"""Connections out of a hospital's network: its own certificate authority, and what failures mean.

Only the ingest job connects to anything. It reads CA_BUNDLE, HTTPS_PROXY, HTTP_PROXY and NO_PROXY
from the environment.
"""

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib.run.errors import JobError
from lib.run.logs import USER_IN_URL

_READ_BY_CLIENTS = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")  # requests; urllib and Python's ssl


@contextmanager
def trusted_authorities() -> Iterator[None]:
    """Trust the certificates of the PEM file CA_BUNDLE, besides those trusted already.

    Raises:
        JobError: CA_BUNDLE names no file, or one without a certificate.
    """
    given = os.environ.get("CA_BUNDLE")
    if not given:
        yield
        return
    file = Path(given).expanduser()
    _require_certificates(file)
    before = {name: os.environ.get(name) for name in _READ_BY_CLIENTS}
    with tempfile.NamedTemporaryFile(prefix="authorities-", suffix=".pem") as together:
        together.write(_trusted_already().read_bytes() + b"\n" + file.read_bytes())
        together.flush()
        os.environ.update(dict.fromkeys(_READ_BY_CLIENTS, together.name))
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _require_certificates(file: Path) -> None:
    try:
        ssl.create_default_context(cafile=str(file))
    except FileNotFoundError:
        raise JobError(f"CA_BUNDLE: there is no file {file}.") from None
    except OSError as error:  # ssl.SSLError is one
        raise JobError(
            f"CA_BUNDLE: {file} holds no certificate that can be read ({error.strerror or error}). "
            "It takes a PEM file, which begins with -----BEGIN CERTIFICATE-----; "
            "openssl x509 -inform der -in FILE.cer -out FILE.pem makes one of a DER file."
        ) from error


def _trusted_already() -> Path:
    from certifi import where

    return Path(os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or where())


def describe_failure(error: BaseException) -> str:
    """One sentence for a connection that could not be made; empty if `error` is of another kind."""
    links = list(_chain(error))
    texts = " ".join(str(link) for link in links)
    for link in links:
        if isinstance(link, ssl.SSLCertVerificationError):
            return (
                f"the server's certificate is not trusted ({link.verify_message}): set CA_BUNDLE "
                "in .env to the PEM file of your network's certificate authority."
            )
    if any(isinstance(link, ssl.SSLError) for link in links):
        return (
            "no TLS connection can be made: does HTTPS_PROXY in .env begin with http://, "
            "as the addresses of most proxies do?"
        )
    if "407" in texts and "roxy" in texts:
        return (
            "the proxy asks for a user and a password (407): set HTTPS_PROXY in .env to "
            "http://USER:PASSWORD@HOST:PORT, special characters as %XX."
        )
    if any(type(link).__name__ == "ProxyError" for link in links):
        return "the proxy does not answer or refuses: check HTTPS_PROXY and NO_PROXY in .env."
    return ""


def without_credentials(text: str) -> str:
    """`text` with `***` in the place of user and password in addresses."""
    return USER_IN_URL.sub("://***@", text)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was made of: causes, `reason` of urllib3, exceptions in `args`."""
    waiting, seen = [error], set[int]()
    while waiting:
        link = waiting.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        inner = (link.__cause__, link.__context__, getattr(link, "reason", None), *link.args)
        waiting += [one for one in inner if isinstance(one, BaseException)]
