"""Films from a PACS: dcmtk's storescu plays the modality, deploy/pacs/receive.sh receives,
deploy/predict.sh classifies.
"""

import csv
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.formats import dicom
from tests.project.test_deploy import PROJECT, checkout, script

pytestmark = pytest.mark.skipif(
    not (shutil.which("storescp") and shutil.which("storescu")),
    reason="dcmtk (storescp, storescu) is not installed",
)
__all__ = ["checkout"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _wait(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.01)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox/.receiving").mkdir(parents=True)
    (tmp_path / "inbox/.receiving/torn.dcm").write_text("left by a power failure")
    return tmp_path / "inbox"


@pytest.fixture
def port(inbox: Path) -> Iterator[int]:
    """A receiver for the inbox, on this port."""
    number = _free_port()
    receiver = subprocess.Popen([PROJECT / "deploy/pacs/receive.sh", inbox, str(number)])
    try:
        _wait(lambda: _answers(number))
        yield number
    finally:
        receiver.terminate()
        receiver.wait(timeout=30)


def film(path: Path, number: int, side: int = 96) -> Path:
    """A frontal film as a modality sends it."""
    coarse = np.random.default_rng(number).integers(0, 255, (12, 12), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    return dicom(
        path, picture, StudyInstanceUID=f"1.2.826.{number}", AccessionNumber=f"ACC{number}"
    )


def send(port: int, *films: Path) -> "subprocess.CompletedProcess[str]":
    command = ["storescu", "-aec", "CXRJOBS", "127.0.0.1", str(port), *map(str, films)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def received(inbox: Path) -> list[Path]:
    return [path for path in inbox.iterdir() if path.is_file()]


def test_what_a_modality_sends_is_a_row_with_study_and_accession(
    port: int, inbox: Path, tmp_path: Path, checkout: Path
) -> None:
    assert not list((inbox / ".receiving").iterdir())
    sent = [film(tmp_path / f"{number}.dcm", number) for number in (1, 2, 3)]
    done = send(port, *sent)
    assert done.returncode == 0, done.stderr
    _wait(lambda: len(received(inbox)) == 3)
    tags = ["--dicom_tags", "StudyInstanceUID,AccessionNumber"]
    predicted = script(checkout, "predict.sh", inbox, tmp_path / "today.csv", *tags)
    assert predicted.returncode == 0, predicted.stderr
    with open(tmp_path / "today.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted((row["StudyInstanceUID"], row["AccessionNumber"]) for row in rows) == [
        (f"1.2.826.{number}", f"ACC{number}") for number in (1, 2, 3)
    ]
    assert all(row["prediction"] and not row["error"] for row in rows)


def test_a_film_that_is_cut_on_the_way_never_reaches_the_inbox(
    port: int, inbox: Path, tmp_path: Path
) -> None:
    large = film(tmp_path / "large.dcm", 4, side=1500)
    through = _free_port()
    relay = threading.Thread(target=_relay, args=(through, port, 1_000_000))
    relay.start()
    _wait(lambda: relay.is_alive())
    cut = send_when_open(through, large)
    relay.join(timeout=30)
    assert cut.returncode != 0
    assert received(inbox) == []
    assert send(port, large).returncode == 0
    _wait(lambda: len(received(inbox)) == 1)


def send_when_open(port: int, path: Path) -> "subprocess.CompletedProcess[str]":
    """The relay takes a single connection: try until it listens."""
    deadline = time.monotonic() + 30
    while True:
        done = send(port, path)
        if "refused" not in done.stderr or time.monotonic() > deadline:
            return done


def _relay(listen: int, target: int, limit: int) -> None:
    """Pass one connection on, and hang up after `limit` bytes."""
    with socket.create_server(("127.0.0.1", listen)) as server:
        client, _ = server.accept()
    with client, socket.create_connection(("127.0.0.1", target)) as behind:
        back = threading.Thread(target=_pour, args=(behind, client))
        back.start()
        passed = 0
        while passed < limit and (piece := client.recv(min(65536, limit - passed))):
            behind.sendall(piece)
            passed += len(piece)
        for end in (client, behind):
            end.shutdown(socket.SHUT_RDWR)
        back.join(timeout=30)


def _pour(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
    except OSError:
        return


@pytest.mark.parametrize(("words", "message"), [((), "usage:"), (("/nowhere",), "usage:")])
def test_wrong_usage_ends_with_2(words: tuple[str, ...], message: str) -> None:
    done = subprocess.run(
        [PROJECT / "deploy/pacs/receive.sh", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr


def test_the_unit_is_one_that_systemd_takes() -> None:
    text = (PROJECT / "deploy/pacs/cxr-receive.service").read_text()
    assert re.search(r"^ExecStart=/srv/cxr-jobs/deploy/pacs/receive\.sh /srv/inbox", text, re.M)
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
