"""A page in headless Chromium, through its debugging protocol: what the console says, what a script finds, pictures."""

from __future__ import annotations

import asyncio
import base64
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium")
START_SECONDS = 120


class Page:
    """An open page. What goes wrong on it is in `problems`."""

    def __init__(self, port: int, path: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._number = 0
        self.problems: list[str] = []
        self._loop.run_until_complete(self._open(port, path))

    async def _open(self, port: int, path: Path) -> None:
        self._session = aiohttp.ClientSession()
        async with self._session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as answer:
            address = (await answer.json())["webSocketDebuggerUrl"]
        self._socket = await self._session.ws_connect(address, max_msg_size=0)
        for domain in ("Page", "Runtime", "Log"):
            await self._ask(f"{domain}.enable")
        await self._ask("Page.navigate", url=path.as_uri())
        while not await self._value("document.readyState === 'complete' && location.protocol === 'file:'"):
            await asyncio.sleep(0.05)

    async def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])
            if message.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
                self.problems.append(str(message["params"]))

    async def _value(self, script: str) -> Any:
        result = await self._ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def value(self, script: str) -> Any:
        """What a script finds on the page."""
        return self._loop.run_until_complete(self._value(script))

    def look(self, width: int, theme: str) -> None:
        """Show the page at this width, in a `light` or `dark` theme."""
        feature = [{"name": "prefers-color-scheme", "value": theme}]
        self._loop.run_until_complete(self._ask("Emulation.setEmulatedMedia", features=feature))
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self._loop.run_until_complete(self._ask("Emulation.setDeviceMetricsOverride", **size))

    def picture(self, file: Path) -> None:
        """A picture of the whole page."""
        taken = self._loop.run_until_complete(self._ask("Page.captureScreenshot", captureBeyondViewport=True))
        file.write_bytes(base64.b64decode(taken["data"]))

    def close(self) -> None:
        """Close the connection."""
        self._loop.run_until_complete(self._socket.close())
        self._loop.run_until_complete(self._session.close())
        self._loop.close()


@contextmanager
def opened(path: Path, profile: Path) -> Iterator[Page]:
    """The page in a Chromium of its own, whose profile is in the folder `profile`."""
    assert CHROMIUM
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0"]
    process = subprocess.Popen(
        [CHROMIUM, *options, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        active, deadline = profile / "DevToolsActivePort", time.monotonic() + START_SECONDS
        while not (active.exists() and active.read_text().strip()):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        page = Page(int(active.read_text().split()[0]), path)
        try:
            yield page
        finally:
            page.close()
    finally:
        process.terminate()
        process.wait(30)
