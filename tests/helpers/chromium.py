"""A headless Chromium, driven by its DevTools messages through a pipe."""
import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any

PROGRAM = shutil.which('chromium')
FLAGS = ('--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage', '--remote-debugging-pipe')
PATIENCE = 60  # seconds until a browser that says nothing is given up
COMPLAINTS = ('Log.entryAdded', 'Runtime.exceptionThrown', 'Runtime.consoleAPICalled', 'Network.loadingFailed')


class Chromium:
    """A browser with one page. `with Chromium(folder) as browser: browser.open(path)`."""

    def __init__(self, profile: Path) -> None:
        pipes = [*os.pipe(), *os.pipe()]
        # The browser's ends are moved up, because it wants them as 3 and 4, which may be in use here.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (pipes[0], pipes[3])]
        command = f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[1]}'
        self._process = subprocess.Popen(
            ['bash', '-c', command, PROGRAM, *FLAGS, f'--user-data-dir={profile}', 'about:blank'],
            pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for end in (pipes[0], pipes[3], *ends):
            os.close(end)
        self._to, self._from = pipes[1], pipes[2]
        self._received, self._number, self._session, self.events = b'', 0, None, []

    def __enter__(self) -> 'Chromium':
        target = self.send('Target.createTarget', url='about:blank')['targetId']
        self._session = self.send('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Network', 'Log', 'Runtime'):
            self.send(f'{domain}.enable')
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def send(self, method: str, **params: Any) -> dict:
        """Send a command and return its result."""
        self._number += 1
        message = dict(id=self._number, method=method, params=params)
        message |= {'sessionId': self._session} if self._session else {}
        os.write(self._to, json.dumps(message).encode() + b'\0')
        while (answer := self._next()).get('id') != self._number:
            self.events.append(answer)
        assert 'error' not in answer, answer
        return answer['result']

    def _next(self) -> dict:
        while b'\0' not in self._received:
            assert select.select([self._from], [], [], PATIENCE)[0], 'Chromium says nothing'
            data = os.read(self._from, 1 << 20)
            assert data, 'Chromium has ended'
            self._received += data
        message, _, self._received = self._received.partition(b'\0')
        return json.loads(message)

    def open(self, page: Path, width: int = 1280, dark: bool = False, script: bool = True) -> None:
        """Show a file in a window of a width; what happened before is forgotten."""
        self.send('Emulation.setDeviceMetricsOverride', width=width, height=844, deviceScaleFactor=1,
                  mobile=width < 700)
        scheme = 'dark' if dark else 'light'
        self.send('Emulation.setEmulatedMedia', features=[dict(name='prefers-color-scheme', value=scheme)])
        self.send('Emulation.setScriptExecutionDisabled', value=not script)
        self.events.clear()
        self.send('Page.navigate', url=page.as_uri())
        while not any(event.get('method') == 'Page.loadEventFired' for event in self.events):
            self.events.append(self._next())

    def run(self, script: str) -> Any:
        """Return the value of JavaScript in the page; a promise is awaited."""
        answer = self.send('Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True)
        assert 'exceptionDetails' not in answer, answer
        return answer['result'].get('value')

    def press(self, key: str) -> None:
        """Press and release a key that types a character, such as Enter."""
        for kind in ('keyDown', 'keyUp'):
            self.send('Input.dispatchKeyEvent', type=kind, key=key, text='\r', windowsVirtualKeyCode=13)

    def complaints(self) -> list[dict]:
        """Return what the page wrote to the console, errors, and what could not be loaded."""
        return [event for event in self.events if event.get('method') in COMPLAINTS]

    def requests(self) -> list[str]:
        """Return the addresses that the page asked for, pictures within it left aside."""
        asked = [event['params']['request']['url'] for event in self.events
                 if event.get('method') == 'Network.requestWillBeSent']
        return [url for url in asked if not url.startswith('data:')]

    def screenshot(self) -> bytes:
        """Return the window as PNG bytes."""
        return base64.b64decode(self.send('Page.captureScreenshot', captureBeyondViewport=True)['data'])
