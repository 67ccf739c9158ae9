"""A sandbox of our own, an nginx in front of it, and the hands to steer them.

Everything listens on loopback, on a port the system picks, and is stopped by its process id.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SCENARIO = json.loads((HERE / "scenario.json").read_text(encoding="utf-8"))
SAMPLE = SCENARIO["sample"]
MISMATCH = {**SAMPLE, "BankCard": SCENARIO["mismatch_card"]}
CODES = SCENARIO["codes"]
PUBLIC = SCENARIO["public"]

UUID4 = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")


def missing(what):
    """A tool is not there: a failure where everything must run, a named skip elsewhere."""
    if os.environ.get("CARD4E_REQUIRE_ALL") == "1":
        pytest.fail(f"{what} is missing, and CARD4E_REQUIRE_ALL=1 forbids to skip", pytrace=False)
    pytest.skip(f"{what} is missing (./test installs it)")


def need_tool(name, *places):
    """The path of a program, also looked for beside this Python and in the given places."""
    import sys

    for folder in (None, str(Path(sys.executable).parent), *places):
        found = shutil.which(name, path=folder)
        if found:
            return found
    return missing(f"the program {name}")


def need_module(name):
    """An imported module."""
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as absent:
        return missing(f"the Python module {absent.name}")


def client_environment(**more):
    """The environment for a client's own process: no proxy, no configuration of the user's."""
    keep = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "LC_ALL", "TMPDIR")}
    return {"LANG": "C.UTF-8", "PYTHONUTF8": "1", **keep, **more}


def wait_until(check, seconds, what):
    """Polls `check` until it gives something true; never longer than `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: nothing after {seconds} s")
        time.sleep(0.01)


def free_port():
    """A port that was free a moment ago, for servers that cannot pick one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Reply:
    """What a control endpoint answered."""

    def __init__(self, status, body):
        self.status = status
        self.text = body.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.text)


class Server:
    """One process of ours that answers, reached at `address` and `url`."""

    def __init__(self, folder, command, ca=None):
        binary = Path(os.environ.get("CARD4E_BIN", ROOT / "target" / "release" / "card4e"))
        if not binary.is_file():
            missing(f"the server {binary} (cargo build --release)")
        folder.mkdir(parents=True, exist_ok=True)
        ready = folder / "ready"
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(binary), *command, "--ready-file", str(ready)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, "TMPDIR": str(folder)},
            )
        try:
            self.address = wait_until(lambda: self._ready(ready), 30, "the server's ready file")
        except BaseException:
            self.stop()
            raise
        scheme = "http" if ca is None else "https"
        self.url = f"{scheme}://{self.address}"
        self.ca = ca
        trusting = [] if ca is None else [
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))
        ]
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), *trusting)

    def _ready(self, ready):
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended ({self.process.returncode}):\n{self.tail()}")
        with contextlib.suppress(FileNotFoundError):
            return ready.read_text(encoding="utf-8").strip().removeprefix("http://").rstrip("/")
        return None

    def tail(self):
        """The end of its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]

    def stop(self):
        """Ends this process and no other."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)


class Sandbox(Server):
    """One `card4e sandbox` process and its control interface."""

    def __init__(self, folder, config=None, arguments=(), ca=None):
        command = ["sandbox", "--listen", "127.0.0.1:0"]
        if config is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "card4e.toml").write_text(config, encoding="utf-8")
            command += ["--config", str(folder / "card4e.toml")]
        super().__init__(folder, [*command, *arguments], ca)

    def control(self, method, path, body=None, expect=(200, 201, 204)):
        """Calls `/_sandbox/<path>`."""
        request = urllib.request.Request(
            f"{self.url}/_sandbox/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={} if body is None else {"content-type": "application/json"},
        )
        try:
            with self.opener.open(request, timeout=10) as answer:
                reply = Reply(answer.status, answer.read())
        except urllib.error.HTTPError as refused:
            reply = Reply(refused.code, refused.read())
        assert expect is None or reply.status in expect, (
            f"{method} /_sandbox/{path} {body}: {reply.status} {reply.text}"
        )
        return reply

    def reset(self):
        self.control("POST", "reset")

    def shift_clock(self, seconds):
        self.control("PUT", "clock", {"mode": "shifted", "seconds": seconds})

    def freeze_clock(self):
        """Stops the sandbox's clock at the present second."""
        self.control("PUT", "clock", {"mode": "frozen", "now": int(time.time())})

    def fault(self, effect=None, **rule):
        """Adds one fault rule; `count=1` unless told otherwise."""
        rule = {"count": 1, **rule}
        if effect is not None:
            rule["effect"] = effect
        self.control("POST", "faults", rule)

    def journal(self):
        return self.control("GET", "journal").json()["entries"]

    def ledger(self):
        return self.control("GET", "ledger").json()

    def application(self, name):
        """The credentials of one of the sandbox's applications."""
        if name == "public":
            return {"name": "public", "token": None, **PUBLIC}
        listed = self.control("GET", "credentials").json()
        listed = listed if isinstance(listed, list) else listed["credentials"]
        found = [entry for entry in listed if entry["name"] == name]
        assert found, f"no application {name} among {[entry['name'] for entry in listed]}"
        return found[0]

    @contextlib.contextmanager
    def charged(self, charges, records=None):
        """What happens inside adds exactly so many charges and audit records."""
        before = self.ledger()
        yield
        after = self.ledger()
        assert after["charges"] - before["charges"] == charges, (before, after, self.journal())
        if records is not None:
            assert after["records"] - before["records"] == records, (before, after)


class Nginx:
    """Debian's nginx with a folder of its own: one server that keeps Host, one that rewrites it."""

    def __init__(self, folder, upstream):
        binary = need_tool("nginx", "/usr/sbin", "/usr/local/sbin")
        (folder / "tmp").mkdir(parents=True)
        keeping, rewriting = free_port(), free_port()
        self.keeping = f"127.0.0.1:{keeping}"
        self.rewriting = f"127.0.0.1:{rewriting}"
        temporary = "\n".join(
            f"  {kind}_temp_path {folder}/tmp/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            f"""
{"user root;" if os.geteuid() == 0 else ""}
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 128; }}
http {{
  access_log off;
{temporary}
  server {{
    listen {self.keeping};
    location / {{
      proxy_pass http://{upstream};
      proxy_set_header Host $http_host;
    }}
  }}
  server {{
    listen {self.rewriting};
    location / {{ proxy_pass http://{upstream}; }}
  }}
}}
""",
            encoding="utf-8",
        )
        self.log = folder / "error.log"
        self.process = subprocess.Popen(
            [binary, "-p", str(folder), "-e", str(self.log), "-c", str(folder / "nginx.conf")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: self._listens(keeping), 10, "nginx")
            wait_until(lambda: self._listens(rewriting), 10, "nginx")
        except BaseException:
            self.stop()
            raise

    def _listens(self, port):
        if self.process.poll() is not None:
            log = self.log.read_text() if self.log.exists() else ""
            raise AssertionError(f"nginx ended ({self.process.returncode}): {log}")
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
