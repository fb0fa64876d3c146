"""A headless Chromium that tests drive through its own debugging protocol."""

import asyncio
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest

Result = TypeVar("Result")
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
_CODES = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13}


class Browser:
    """One page. What it says on its console, and its uncaught errors, are in `complaints`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, loop: asyncio.AbstractEventLoop):
        self._socket, self._loop, self._number = socket, loop, 0
        self.complaints: list[str] = []

    def open(self, page: Path) -> None:
        """Load a page from the disk and wait until it is there."""
        self.call("Page.navigate", url=page.as_uri())
        self._run(self._event("Page.loadEventFired"))

    def reload(self) -> None:
        """Load the page again."""
        self.call("Page.reload")
        self._run(self._event("Page.loadEventFired"))

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited.

        Raises:
            AssertionError: it throws.
        """
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key: an arrow, Enter, or a character."""
        code = {"windowsVirtualKeyCode": _CODES.get(key) or ord(key.upper())}
        text = {} if key.startswith("Arrow") else {"text": "\r" if key == "Enter" else key}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, **code)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Send a mouse event: mousePressed, mouseMoved, mouseReleased or mouseWheel."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def window(self, width: int, height: int, *, is_dark: bool = False) -> None:
        """Give the page a size in pixels, and a light or dark scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 700,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        return self._run(self._call(method, parameters))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            message = await self._message()
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]
                result: dict[str, Any] = message["result"]
                return result

    async def _event(self, method: str) -> None:
        while (await self._message()).get("method") != method:
            pass

    async def _message(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self._socket.receive_str(timeout=60))
        if message.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(message["params"])[:500])
        return message

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._loop.run_until_complete(work)


@contextmanager
def browser(downloads: Path) -> Iterator[Browser]:
    """A browser with a profile of its own, whose pages save files into `downloads`."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu"]
        command += [f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr
            lines = iter(process.stderr.readline, "")
            found = next(filter(None, (re.search(r"ws://([^/]+)/", line) for line in lines)))
            with asyncio.Runner() as runner:
                yield from _page(runner, found.group(1), downloads)
        finally:
            process.terminate()
            process.wait(timeout=30)


def _page(runner: asyncio.Runner, address: str, downloads: Path) -> Iterator[Browser]:
    loop = runner.get_loop()
    session = loop.run_until_complete(_session())
    try:
        socket = loop.run_until_complete(_connected(session, address))
        page = Browser(socket, loop)
        for domain in ("Page", "Runtime"):
            page.call(f"{domain}.enable")
        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        yield page
    finally:
        loop.run_until_complete(session.close())


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession()


async def _connected(
    session: aiohttp.ClientSession, address: str
) -> aiohttp.ClientWebSocketResponse:
    async with session.get(f"http://{address}/json") as answer:
        pages = [one for one in await answer.json() if one["type"] == "page"]
    return await session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)
