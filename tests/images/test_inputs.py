"""Films in a bucket, against a real S3 server on this machine: the rows of a folder, and what a
store can do to a batch.
"""

import csv
import importlib
import json
import multiprocessing.forkserver
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from moto import settings as moto_settings
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from jobs import evaluate, predict_batch
from lib.images import buckets, inputs
from lib.run.errors import JobError, UnreadableFilmError, UsageError
from lib.storage.cells import from_cell
from lib.storage.stamp import Stamp
from tests.conftest import environment, film, run

ODD = [
    "a b.png",
    "ä 漢.png",
    "a#b.png",
    "a?b.png",
    "100%.png",
    "%20.png",
    "a+b.png",
    "=1+1.png",
    "-x.png",
    "a&b=c.png",
]
Answer = Callable[[dict[str, Any]], object]


class Store:
    """An S3 server that counts what is asked, and that a test may take over for a while."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.before: Answer = lambda _: None
        self._s3 = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.asked.append(
            (environ["REQUEST_METHOD"], unquote(environ["PATH_INFO"].encode("latin-1").decode()))
        )
        self.before(environ)
        return self._s3(environ, start_response)

    def downloads(self) -> list[str]:
        """The keys that were read."""
        return [
            path.partition("/films/")[2]
            for method, path in self.asked
            if method == "GET" and "/films/" in path
        ]

    def stop(self) -> None:
        self._server.shutdown()


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    """The environment says where it is; the reading processes are forked anew, so that they know it
    too.
    """
    with pytest.MonkeyPatch.context() as patch:
        store = Store()
        patch.setenv("AWS_ENDPOINT_URL", store.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "accesskeyid")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "verysecretkey")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        _end_of_the_fork_server()
        buckets._file_system.cache_clear()
        yield store
        store.stop()
    _end_of_the_fork_server()
    buckets._file_system.cache_clear()


def _end_of_the_fork_server() -> None:
    multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]


@pytest.fixture
def store(server: Store) -> Iterator[Store]:
    """Empty, with a bucket named `films`."""
    server.before = lambda _: None
    s3 = buckets._file_system("s3")
    if s3.exists("films"):
        s3.rm("films", recursive=True)
    s3.call_s3("create_bucket", Bucket="films")
    server.asked.clear()
    yield server
    server.before = lambda _: None


def put(key: str, content: bytes | Path) -> None:
    body = content if isinstance(content, bytes) else content.read_bytes()
    buckets._file_system("s3").call_s3("put_object", Bucket="films", Key=key, Body=body)


def bucket(source: str, chain: Path, table: Path, *more: object) -> int:
    return run(
        predict_batch, "--input", source, "--output", table, "--runs_dir", chain / "runs", *more
    )


def _rows(table: Path) -> dict[str, dict[str, str]]:
    with open(table, newline="", encoding="utf-8") as file:
        return {from_cell(row["path"]): row for row in csv.DictReader(file)}


@pytest.fixture
def inbox(tmp_path: Path, store: Store) -> Path:
    """Films with odd names, a broken one, hidden ones, in a folder and below s3://films/in."""
    folder = tmp_path / "in"
    for number, name in enumerate(ODD):
        film(folder / ("deep/er" if number % 3 == 2 else "") / name, seed=number, side=64 + number)
    (folder / "broken.png").write_bytes((folder / ODD[1]).read_bytes()[:500])
    (folder / "notes.txt").write_text("hello")
    (folder / "empty.png").touch()
    film(folder / ".hidden.png")
    film(folder / "Thumbs.db", format="PNG")
    for path in folder.rglob("*"):
        if path.is_file():
            put(f"in/{path.relative_to(folder).as_posix()}", path)
    put("in/", b"")  # as consoles make folders
    put("in/deep/", b"")
    put("inner/other.png", folder / ODD[0])
    return folder


def test_a_bucket_gives_the_bytes_that_a_folder_gives(
    chain: Path, inbox: Path, tmp_path: Path
) -> None:
    assert (
        run(
            predict_batch,
            "--input",
            inbox,
            "--output",
            tmp_path / "f.csv",
            "--runs_dir",
            chain / "runs",
        )
        == 3
    )
    for number, url in enumerate(("s3://films/in", "s3://films/in/")):
        table = tmp_path / f"{number}.csv"
        assert (
            bucket(
                url,
                chain,
                table,
                "--report",
                tmp_path / "x.html",
                "--explain",
                tmp_path / f"maps{number}",
            )
            == 3
        )
        assert table.read_bytes() == (tmp_path / "f.csv").read_bytes()
        page = (tmp_path / "x.html").read_text()
        assert page.count("data:image/jpeg") == 3 * len(ODD)  # seen, evidence, whole
        maps = {
            path.relative_to(tmp_path / f"maps{number}").as_posix()
            for path in (tmp_path / f"maps{number}").rglob("*.png")
        }
        assert maps == {f"{name}.png" for name, row in _rows(table).items() if row["prediction"]}


def test_a_place_lists_the_names_of_a_folder(inbox: Path) -> None:
    folder, listed = inputs.inputs_of(str(inbox), []), inputs.inputs_of("s3://films/in", [])
    assert (list(listed.names), listed.passed_over) == (list(folder.names), folder.passed_over)
    assert all(listed.stamp(name).size == folder.stamp(name).size for name in folder.names)
    assert all(abs(listed.stamp(name).mtime_ns / 1e9 - time.time()) < 600 for name in listed.names)
    assert [listed.sha256(name) for name in ODD[1:3]] == [folder.sha256(name) for name in ODD[1:3]]
    assert set(inputs.inputs_of("s3://films", []).names) == {
        f"in/{name}" for name in folder.names
    } | {"inner/other.png"}
    assert list(inputs.inputs_of(f"s3://films/in/{ODD[1]}", []).names) == [ODD[1]]
    assert listed.stamp("zzz") == listed.stamp("") == Stamp()
    assert not listed.sha256("zzz")


def _list_names_at_once(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the store answer with so many names per request."""
    monkeypatch.setattr(buckets._file_system("s3"), "req_kw", {"MaxKeys": number})


def test_films_are_classified_while_the_others_are_listed(
    chain: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{name}.png" for name in ("A", "a", "a/b", "ä", "漢", "\U0001fac1")]
    for number, name in enumerate(names):
        put(f"in/{name}", film(tmp_path / f"{number}.png", seed=number, side=64))
    assert bucket("s3://films/in", chain, tmp_path / "whole.csv") == 0
    _list_names_at_once(monkeypatch, 2)
    was_read = threading.Event()
    waited = []

    def before(environ: dict[str, Any]) -> None:
        if environ["PATH_INFO"].endswith(".png"):
            was_read.set()
        if "continuation-token" in environ["QUERY_STRING"]:
            waited.append(was_read.wait(60))

    store.before = before
    assert bucket("s3://films/in", chain, tmp_path / "x.csv") == 0
    assert waited == [True, True]
    assert list(_rows(tmp_path / "x.csv")) == sorted(names)
    assert (tmp_path / "x.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_listing_that_breaks_off_keeps_the_rows_of_what_was_listed(
    chain: Path,
    store: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = film(tmp_path / "one.png", side=64)
    for number in range(40):
        put(f"in/{number:02}.png", one)
    _list_names_at_once(monkeypatch, 30)

    def before(environ: dict[str, Any]) -> None:
        if "continuation-token" in environ["QUERY_STRING"]:
            _hang_up(environ)

    store.before = before
    assert bucket("s3://films/in", chain, tmp_path / "x.csv") == 1
    assert "s3://films does not answer" in capsys.readouterr().err
    store.before = lambda _: None
    assert bucket("s3://films/in", chain, tmp_path / "x.csv") == 0
    assert "an interrupted run left 30 of 40 rows" in capsys.readouterr().out
    assert list(_rows(tmp_path / "x.csv")) == [f"{number:02}.png" for number in range(40)]


def test_a_single_object_is_an_input(chain: Path, inbox: Path, tmp_path: Path) -> None:
    assert bucket("s3://films/inner/other.png", chain, tmp_path / "x.csv") == 0
    assert list(_rows(tmp_path / "x.csv")) == ["other.png"]


def test_a_place_without_objects_is_said_and_one_with_a_mark_is_an_empty_table(
    chain: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put("today/", b"")
    assert bucket("s3://films/today", chain, tmp_path / "x.csv") == 0
    assert not _rows(tmp_path / "x.csv")
    for url in ("s3://films/tody", "s3://nowhere/today"):
        assert bucket(url, chain, tmp_path / "y.csv") == 1
        assert f"{url}: no object found" in capsys.readouterr().err
    assert not (tmp_path / "y.csv").exists()


def _fails_at(key: str, act: Callable[[], None]) -> Answer:
    """Do something once, when `key` is read."""
    done = threading.Event()

    def before(environ: dict[str, Any]) -> None:
        if (
            environ["REQUEST_METHOD"] == "GET"
            and environ["PATH_INFO"].endswith(key)
            and not done.is_set()
        ):
            done.set()
            act()

    return before


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (
            lambda: buckets._file_system("s3").call_s3(
                "delete_object", Bucket="films", Key="in/b.png"
            ),
            "cannot be fetched",
        ),
        (lambda: put("in/b.png", b"another size"), "changed after it was listed"),
    ],
)
def test_an_object_that_goes_or_changes_is_one_row(
    chain: Path, store: Store, tmp_path: Path, act: Callable[[], None], reason: str
) -> None:
    for name in "abc":
        put(f"in/{name}.png", film(tmp_path / f"{name}.png"))
    store.before = _fails_at("in/b.png", act)
    assert bucket("s3://films/in", chain, tmp_path / "x.csv") == 3
    assert [reason in row["error"] for row in _rows(tmp_path / "x.csv").values()] == [
        False,
        True,
        False,
    ]


def test_an_object_that_is_too_large_is_not_fetched(
    chain: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("in/a.png", film(tmp_path / "a.png"))
    monkeypatch.setattr(buckets, "LARGEST_OBJECT", 100)
    with (
        pytest.raises(UnreadableFilmError, match="are fetched"),
        buckets.fetched(inputs.inputs_of("s3://films/in", []).source("a.png")),
    ):
        pass
    assert not store.downloads()


def _hang_up(environ: dict[str, Any]) -> None:
    environ["werkzeug.socket"].shutdown(2)


def test_a_store_that_goes_down_stops_the_job_and_the_rerun_completes_the_table(
    chain: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = film(tmp_path / "one.png", side=64)
    for number in range(60):
        put(f"in/{number:03}.png", one)
    assert bucket("s3://films/in", chain, tmp_path / "whole.csv") == 0
    down = threading.Event()

    def before(environ: dict[str, Any]) -> None:
        if down.is_set() or environ["PATH_INFO"].endswith("040.png"):
            down.set()
            _hang_up(environ)

    store.before = before
    assert bucket("s3://films/in", chain, tmp_path / "x.csv", "--report", tmp_path / "x.html") == 1
    said = capsys.readouterr().err
    assert "s3://films does not answer" in said
    assert "then run the same command again" in said
    assert "040.png" not in said
    assert not (tmp_path / "x.csv").exists()
    kept = (tmp_path / ".x.csv.journal").read_bytes().count(b"\n") - 1
    assert kept > 10
    store.before = lambda _: None
    store.asked.clear()
    assert bucket("s3://films/in", chain, tmp_path / "x.csv") == 0
    assert (tmp_path / "x.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert len(store.downloads()) == 60 - kept


def test_a_store_that_is_down_is_said(
    chain: Path,
    store: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buckets._file_system.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    assert bucket("s3://films/in", chain, tmp_path / "x.csv") == 1
    assert time.monotonic() - began < 60
    buckets._file_system.cache_clear()
    said = capsys.readouterr().err
    assert "s3://films does not answer" in said
    assert "check address, credentials and network" in said
    assert not (tmp_path / "x.csv").exists()


def test_a_store_that_is_silent_is_given_up(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "READ_SECONDS", 0.3)
    buckets._file_system.cache_clear()
    leave = threading.Event()
    store.before = lambda _: leave.wait(30)
    try:
        with pytest.raises(JobError, match="does not answer"):
            inputs.inputs_of("s3://films/in", [])
    finally:
        leave.set()
        buckets._file_system.cache_clear()
    assert len(store.asked) == 4  # twice by botocore, and this twice by s3fs


@pytest.mark.parametrize("is_whole_store", [False, True])
def test_one_film_that_hangs_is_one_row_and_a_store_that_hangs_stops_the_job(
    chain: Path, store: Store, tmp_path: Path, is_whole_store: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        put(f"in/{name}.png", film(tmp_path / f"{name}.png"))
    monkeypatch.setattr(buckets, "READ_SECONDS", 0.5)
    buckets._file_system.cache_clear()
    leave, hangs = threading.Event(), threading.Event()

    def before(environ: dict[str, Any]) -> None:
        if environ["PATH_INFO"].endswith("b.png") or hangs.is_set():
            if is_whole_store:
                hangs.set()
            leave.wait(60)

    store.before = before
    try:
        code = bucket("s3://films/in", chain, tmp_path / "x.csv", "--file_timeout", 12)
    finally:
        leave.set()
        buckets._file_system.cache_clear()
    if is_whole_store:
        assert code == 1
        assert not (tmp_path / "x.csv").exists()
        return
    assert code == 3
    assert [
        "took longer than 12 s" in row["error"] for row in _rows(tmp_path / "x.csv").values()
    ] == [False, True, False]


def test_credentials_that_end_stop_the_job(
    chain: Path,
    store: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in "abc":
        put(f"in/{name}.png", film(tmp_path / f"{name}.png"))
    monkeypatch.setattr(moto_settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
    assert bucket("s3://films/in", chain, tmp_path / "x.csv") == 1
    assert "s3://films does not answer: PermissionError" in capsys.readouterr().err
    monkeypatch.setattr(moto_settings, "INITIAL_NO_AUTH_ACTION_COUNT", float("inf"))

    def ends() -> None:
        moto_settings.INITIAL_NO_AUTH_ACTION_COUNT = 0

    store.before = _fails_at("in/a.png", ends)
    assert bucket("s3://films/in", chain, tmp_path / "x.csv") == 1
    assert not (tmp_path / "x.csv").exists()


def test_only_new_contents_are_downloaded_and_classified(
    chain: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate("bd"):
        put(f"in/{name}.png", film(tmp_path / f"{name}.png", seed=number, side=64))
    state = ("--incremental", tmp_path / "seen.sqlite", "--report", tmp_path / "x.html")
    assert bucket("s3://films/in", chain, tmp_path / "x.csv", *state[:2]) == 0
    store.asked.clear()
    assert bucket("s3://films/in", chain, tmp_path / "x.csv", *state[:2]) == 0
    assert not store.downloads()
    put("in/a.png", tmp_path / "b.png")  # known content
    put("in/c.png", film(tmp_path / "c.png", seed=5, side=64))
    buckets._file_system("s3").call_s3("delete_object", Bucket="films", Key="in/d.png")
    store.asked.clear()
    assert bucket("s3://films/in", chain, tmp_path / "x.csv", *state[:2]) == 0
    assert "2 films were seen before" in capsys.readouterr().out
    assert set(store.downloads()) == {"in/a.png", "in/c.png"}
    assert list(_rows(tmp_path / "x.csv")) == ["b.png", "c.png", "d.png"]
    assert (
        bucket("s3://films/in", chain, tmp_path / "x.csv", *state) == 0
    )  # the page meets a film that is gone
    assert (tmp_path / "x.html").read_text().count('"sha256": ') == 3


def test_a_key_that_leads_out_of_the_folder_gets_no_map(
    chain: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("in/../../../evil.png", "in//evil.png", "in/a.png"):
        put(key, film(tmp_path / "a.png"))
    assert (
        bucket(
            "s3://films/in",
            chain,
            tmp_path / "x.csv",
            "--explain",
            tmp_path / "deep" / "er" / "maps",
        )
        == 0
    )
    assert set(_rows(tmp_path / "x.csv")) == {
        "/evil.png",
        "a.png",
    }  # what begins with a dot is passed over
    assert [path.name for path in tmp_path.rglob("*.png.png")] == ["a.png.png"]
    assert not Path("/evil.png.png").exists()
    assert "leads out of" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url", ["nosuch://films/in", "s3://", "s3://key:secret@films/in", "s3://KEY:sec/ret+x@films/in"]
)
def test_a_url_that_no_bucket_can_have_is_wrong_usage(
    chain: Path, store: Store, tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bucket(url, chain, tmp_path / "out" / "x.csv") == 2
    said = capsys.readouterr().err
    assert "s3://" in said
    assert "sec" not in said
    if url != "s3://":
        assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("fsspec.registry"), "registry", {})
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(JobError, match=r"Install s3fs.*requirements-ray\.txt") as raised:
        buckets.check("s3://films/in")
    assert not isinstance(raised.value, UsageError)


def test_no_credential_reaches_the_log_or_the_screen(
    chain: Path, store: Store, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(chain / "runs" / "model", runs / "model")
    secrets = {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalr/XUtnFEMI+K7",
        "AWS_SESSION_TOKEN": "session-token-1",
        "RAY_AUTH_TOKEN": "ray-token-1",
    }
    said = ""
    for url, more in (
        ("s3://AKIAEXAMPLE:wJalr/XUtnFEMI+K7@films/in", {}),
        ("s3://films/DOE^JOHN/IM1", {"AWS_ENDPOINT_URL": "http://user:pass-1@127.0.0.1:9"}),
        ("s3://films/session-token-1/ray-token-1/wJalr/XUtnFEMI+K7/AKIAEXAMPLE", {}),
    ):
        words = [
            "--input",
            url,
            "--output",
            str(tmp_path / "x.csv"),
            "--runs_dir",
            str(runs),
            "--debug",
        ]
        command = [sys.executable, "-m", "jobs.predict_batch", *words]
        done = subprocess.run(
            command, env=environment(**secrets, **more), capture_output=True, text=True, check=False
        )
        assert done.returncode in (1, 2), done.stderr
        said += done.stderr if "://AKIA" in url else ""
    logged = (runs / "logs" / "predict_batch.jsonl").read_text()
    assert [json.loads(line)["event"] for line in logged.splitlines()].count("failure") == 3
    for secret in (*secrets.values(), "pass-1"):
        assert secret not in logged
        assert secret not in said


def test_labelled_films_of_a_bucket_are_copied_once_and_scored(
    chain: Path,
    store: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(6):
        label = ("normal", "tb")[number % 2]
        put(f"in/{label}/{number}.png", film(tmp_path / f"{number}.png", seed=number))
    monkeypatch.setattr(buckets, "LARGEST_OBJECT", 200_000)
    put("in/tb/huge.png", bytes(300_000))
    flags: tuple[object, ...] = ("--model", chain / "runs/model", "--films", "s3://films/in")
    flags += ("--nobaselines", "--data_dir", tmp_path / "data", "--runs_dir", tmp_path / "runs")
    assert run(evaluate, *flags, "--repeats", "2") == 2
    assert store.downloads() == []
    assert run(evaluate, *flags) == 3  # a film is missing
    results = tmp_path / "runs" / "external" / "in"
    rows = _rows(results / "predictions.csv")
    assert set(rows) == {f"{('normal', 'tb')[number % 2]}/{number}.png" for number in range(6)}
    assert "could not be fetched" in (results / "excluded.csv").read_text()

    store.asked.clear()
    put("in/normal/0.png", film(tmp_path / "new.png", seed=9))
    buckets._file_system("s3").call_s3("delete_object", Bucket="films", Key="in/tb/5.png")
    assert run(evaluate, *flags) == 3
    assert set(store.downloads()) == {"in/normal/0.png"}
    assert set(_rows(results / "predictions.csv")) == set(rows) - {"tb/5.png"}
    capsys.readouterr()
    assert run(evaluate, *flags[:3], "s3://films/none", *flags[4:]) == 1
    assert "s3://films/none: no object found" in capsys.readouterr().err
