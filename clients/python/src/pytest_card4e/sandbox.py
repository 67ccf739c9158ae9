"""One `card4e sandbox` process, what a client needs to reach it, and its control interface.

Needs nothing but the standard library and the program `card4e`.
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

# The same in every sandbox, for ever: they open nothing else.
PUBLIC_SECRET_ID = "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE"
PUBLIC_SECRET_KEY = "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE"
PUBLIC_TOKEN = "4e" * 16

_START_SECONDS = 30
_CONTROL_SECONDS = 10


class SandboxError(Exception):
    """The sandbox did not start, or refused what it was told; the message says what to do."""


def find_binary(binary=None):
    """The program: as given, or as CARD4E_BIN says, or `card4e` on the PATH."""
    wanted = str(binary or os.environ.get("CARD4E_BIN") or "card4e")
    found = shutil.which(wanted)
    if found is None:
        raise SandboxError(f"there is no program {wanted}: install card4e, or set CARD4E_BIN to where it is")
    return str(Path(found).resolve())


class Sandbox:
    """A running sandbox. Use it as a context manager, or call `stop`.

    `address` is `127.0.0.1:PORT`, `url` the same with its scheme.
    """

    def __init__(self, binary=None, arguments=()):
        self._folder = Path(tempfile.mkdtemp(prefix="pytest-card4e-"))
        self._charges_at_reset = 0
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        ready = self._folder / "ready"
        try:
            with (self._folder / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    [find_binary(binary), "sandbox", "--listen", "127.0.0.1:0", "--ready-file", str(ready), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    # A sandbox that is killed leaves its data there.
                    env={**os.environ, "TMPDIR": str(self._folder)},
                )
            self.address = self._wait_for(ready)
        except BaseException:
            self.stop()
            raise
        self.url = f"http://{self.address}"

    def _wait_for(self, ready):
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(FileNotFoundError):
                address = ready.read_text(encoding="utf-8").strip()
                if address:
                    return address
            if self._process.poll() is not None:
                raise SandboxError(f"the sandbox ended with {self._process.returncode}:\n{self.log()}")
            time.sleep(0.005)
        raise SandboxError(f"the sandbox did not answer within {_START_SECONDS} s:\n{self.log()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Ends this process and removes what it wrote."""
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        shutil.rmtree(self._folder, ignore_errors=True)

    def log(self):
        """What it wrote."""
        return (self._folder / "log").read_text(encoding="utf-8", errors="replace")

    # What a client needs.

    @property
    def environment(self):
        """Variables that SDKs and command lines read, and CARD4E_ENDPOINT for code that asks for one."""
        return {
            "TENCENTCLOUD_SECRET_ID": PUBLIC_SECRET_ID,
            "TENCENTCLOUD_SECRET_KEY": PUBLIC_SECRET_KEY,
            "ACEDATACLOUD_API_TOKEN": PUBLIC_TOKEN,
            "ACEDATACLOUD_API_BASE_URL": self.url,
            "CARD4E_ENDPOINT": self.address,
            "CARD4E_URL": self.url,
            "NO_PROXY": "127.0.0.1",
        }

    def tencent_credential(self):
        """A `Credential` of Tencent's Python SDK."""
        from tencentcloud.common.credential import Credential

        return Credential(PUBLIC_SECRET_ID, PUBLIC_SECRET_KEY)

    def tencent_profile(self):
        """A `ClientProfile` of Tencent's Python SDK that leads here."""
        from tencentcloud.common.profile.client_profile import ClientProfile
        from tencentcloud.common.profile.http_profile import HttpProfile

        return ClientProfile(httpProfile=HttpProfile(endpoint=self.address, protocol="http"))

    # What tests want to happen.

    def reset(self):
        """Everything as at the start: accounts, balances, limits, clock, faults, journal."""
        self.control("POST", "reset")
        self._charges_at_reset = self._charges()

    def answer_next(self, *outcomes):
        """The next questions are answered so, in this order: names (`CARD_LOST`) or four-element codes (`-13`)."""
        self.control("POST", "faults", {"sequence": [{"outcome": str(outcome)} for outcome in outcomes]})

    def fault(self, effect, count=1, **rule):
        """A fault rule: `effect` such as `{"error": "InternalError"}`, `{"delay_ms": 500}`, `{"drop": "after"}`."""
        self.control("POST", "faults", {"count": count, "effect": effect, **rule})

    def add_account(self, **account):
        """An account of record: bank_card, name, id_number, phone, status."""
        self.control("POST", "accounts", account)

    def card(self, outcome, action="bankcard-4e"):
        """The card number (of actions without a card, the identity number or mobile) that is always answered so."""
        listed = self.control("GET", "cards")["actions"].get(action, [])
        for entry in listed:
            if entry["outcome"] == outcome:
                return next(entry[name] for name in ("bank_card", "id_card", "phone") if name in entry)
        raise SandboxError(f"no {action} is answered {outcome}; there is {', '.join(entry['outcome'] for entry in listed)}")

    def shift_clock(self, seconds):
        """The sandbox's clock goes so many seconds ahead of the machine's."""
        self.control("PUT", "clock", {"mode": "shifted", "seconds": seconds})

    def freeze_clock(self, now=None):
        """Stops the sandbox's clock, at this Unix time or the present."""
        self.control("PUT", "clock", {"mode": "frozen", "now": int(time.time() if now is None else now)})

    # What happened.

    def journal(self):
        """The requests since the last reset, oldest first; elements are masked."""
        return self.control("GET", "journal?limit=1000")["entries"][::-1]

    def asked(self, **expected):
        """The journal's requests that have these members, for example `outcome="PASS"` or `error="used_up"`."""
        return [entry for entry in self.journal() if all(entry.get(key) == value for key, value in expected.items())]

    def assert_asked(self, times=1, **expected):
        """Fails unless exactly so many requests have these members."""
        found = self.asked(**expected)
        if len(found) != times:
            lines = [
                f"  {entry['action']} {entry['outcome'] or entry['error']} charged {entry['charged']}"
                for entry in self.journal()
            ]
            wanted = ", ".join(f"{key}={value!r}" for key, value in expected.items()) or "anything"
            raise AssertionError(
                f"{len(found)} requests with {wanted}, expected {times}; asked was\n" + ("\n".join(lines) or "  nothing")
            )
        return found

    @property
    def charges(self):
        """Charged answers since the last reset."""
        return self._charges() - self._charges_at_reset

    def _charges(self):
        return self.control("GET", "ledger")["charges"]

    def control(self, method, what, body=None):
        """Calls `/_sandbox/WHAT`; its JSON."""
        request = urllib.request.Request(
            f"{self.url}/_sandbox/{what}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={} if body is None else {"content-type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=_CONTROL_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            raise SandboxError(f"{method} /_sandbox/{what}: {refused.code} {refused.read().decode()}") from None
