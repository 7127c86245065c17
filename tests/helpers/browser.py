"""Chromium without a window, driven through its own debugging pipe: no driver, no port."""

import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--remote-debugging-pipe",
)
WAIT_S = 300
KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), " ": (32, " ")}


class Browser:
    """One tab. said: what the page complained of, as a refused style or script."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = os.fdopen(commands, "wb"), os.fdopen(answers, "rb")
        self._number, self._session, self._rest = 0, "", b""
        self._seen: list[dict] = []
        self.said: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Log", "Runtime"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict:
        """The answer to a command of the DevTools protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while True:
            found = self._next()
            if found.get("id") == self._number:
                assert "error" not in found, found
                return found["result"]
            self._seen.append(found)

    def _next(self) -> dict:
        while b"\0" not in self._rest:
            assert select.select([self._answers], [], [], WAIT_S)[0], "the browser says nothing"
            read = os.read(self._answers.fileno(), 1 << 16)
            assert read, "the browser has ended"
            self._rest += read
        one, _, self._rest = self._rest.partition(b"\0")
        found = json.loads(one)
        if found.get("method") == "Log.entryAdded":
            self.said.append(found["params"]["entry"]["text"])
        return found

    def wait_for(self, method: str) -> None:
        """Until it has happened since the last wait."""
        while not any(each.get("method") == method for each in self._seen):
            self._seen.append(self._next())
        self._seen.clear()

    def open(self, url: str) -> None:
        self._seen.clear()
        self.send("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired")

    def ask(self, expression: str) -> Any:
        """The value of JavaScript in the page."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        return self.send("Runtime.evaluate", **asked)["result"].get("value")

    def press(self, key: str) -> None:
        code, text = KEYS[key]
        keys = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **keys)
        self.send("Input.dispatchKeyEvent", type="keyUp", **keys)

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of the first element of this kind."""
        x, y = self.ask(
            f"(e => {{ e.scrollIntoView(); const b = e.getBoundingClientRect(); return "
            f"[b.x + b.width / 2, b.y + b.height / 2] }})(document.querySelector({selector!r}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            at = {"x": x, "y": y, "button": "left", "clickCount": 1}
            self.send("Input.dispatchMouseEvent", type=kind, **at)

    def resize(self, width: int, height: int = 900) -> None:
        sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **sizes)


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """In an empty folder of its own."""
    chromium = shutil.which("chromium")
    assert chromium, "marked browser"
    read, commands = os.pipe()
    answers, write = os.pipe()

    def to_its_pipes() -> None:  # Chromium reads from 3 and writes to 4
        above = [os.dup(each) for each in (read, write)]
        for number, each in enumerate(above, start=3):
            os.dup2(each, number)

    process = subprocess.Popen(
        [chromium, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
        preexec_fn=to_its_pipes,
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HOME": str(folder)},
    )
    for ours in (read, write):
        os.close(ours)
    try:
        yield Browser(commands, answers)
    finally:
        process.kill()
        process.wait()
