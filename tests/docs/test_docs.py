"""Runs what README and documentation tell people to type.

Every block of a language in RUNNERS is run, in the order of its page, in a fresh folder for each page, with card4e on
the PATH; other languages in CODE and blocks that cannot run here are marked, just before them, with

    <!-- not run: why -->

A page that begins in the middle of something says so once, anywhere in it:

    <!-- page: sandbox -->       a sandbox answers at 127.0.0.1:4400
    <!-- page: bank -->          an installation in ./bank answers there, with accounts and the caller `shop`
    <!-- page: inside bank -->   the same, from within its folder

`#> text` in a block (`//> text` where comments begin so) is what must be printed, in that order. A block after
`<!-- output -->` is the whole output of the block before it. `…` stands for anything in both.

JSON, TOML and YAML are read, whether they can be run here or not.

127.0.0.1:4400 is replaced by a free address, and `accounts.csv` is there. bin/ explains the rest.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "clients"))
from harness import client_environment, free_port, missing, need_tool  # noqa: E402

RUNNERS = {
    "sh": ("sh", [need_tool("bash"), "-euo", "pipefail"]),
    "python": ("py", [sys.executable]),
    "js": ("cjs", ["node"]),
}
CODE = {*RUNNERS, "bash", "console", "javascript", "ts", "go", "java", "php", "ruby", "csharp", "cpp", "rust"}
PRINTED_FIRST = "127.0.0.1:4400"
BLOCK_SECONDS = 60
# Written by tests, or a record of how something was measured.
FOREIGN = {"docs/cli.md", "docs/performance"}


def pages():
    found = [ROOT / "README.md", ROOT / "README.zh.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found += sorted((ROOT / "clients").glob("*/README.md"))
    names = [page.relative_to(ROOT).as_posix() for page in found]
    return [name for name in names if name not in FOREIGN and Path(name).parent.as_posix() not in FOREIGN]


class Block:
    """A fenced block: where it is, what it is, and the marker before it."""

    def __init__(self, line, language, text, marker):
        self.line, self.language, self.text, self.marker = line, language, text, marker

    def reason(self):
        """Why it is not run, if it says so."""
        told = re.fullmatch(r"not run: (.+)", self.marker)
        return told and told[1]

    def expected(self):
        return re.findall(r"(?:#|//)> (.*)", self.text)


def blocks(text):
    """The fenced blocks of a page, without the indent they have in a list."""
    found, marker, opened = [], "", None
    for number, line in enumerate(text.splitlines(), 1):
        fence = re.match(r"( *)```(\w*)", line)
        if opened is None and fence:
            opened = Block(number, fence[2], "", marker)
            indent, marker = len(fence[1]), ""
        elif opened is not None and fence:
            found.append(opened)
            opened = None
        elif opened is not None:
            opened.text += line[indent:] + "\n"
        elif line.strip():
            comment = re.fullmatch(r"\s*<!-- (.+) -->\s*", line)
            marker = comment[1] if comment else ""
    assert opened is None, f"the block at line {opened.line} has no end" if opened else ""
    return found


def like(expected):
    """A pattern for a text in which `…` stands for anything."""
    return ".*?".join(re.escape(part) for part in expected.split("…"))


class Desk:
    """The folder a page is run in, and its server."""

    def __init__(self, folder, page):
        binary = Path(os.environ.get("CARD4E_BIN", ROOT / "target" / "release" / "card4e")).resolve()
        if not binary.is_file():
            missing(f"the server {binary} (cargo build --release)")
        self.state, self.folder = folder / ".state", folder / "work"
        self.state.mkdir(parents=True)
        self.folder.mkdir()
        self.address = f"127.0.0.1:{free_port()}"
        node = os.environ.get("CARD4E_NODE_CLIENTS", ROOT / ".test-env" / "node")
        self.environment = client_environment(
            PATH=os.pathsep.join([str(HERE / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]),
            NODE_PATH=str(Path(node) / "node_modules"),
            HOME=str(folder),
            CARD4E_BIN=str(binary),
            ADDRESS=self.address,
            STATE=str(self.state),
            TMPDIR=str(self.state),
        )
        self.run("sh", "card4e synth --accounts 200 --seed 7 --out accounts.csv --claims claims.csv")
        setting = re.search(r"<!-- page: (.+) -->", page)
        setting = setting[1] if setting else "empty"
        if setting == "sandbox":
            self.run("sh", "card4e sandbox")
        elif setting in ("bank", "inside bank"):
            self.bank()
            if setting == "inside bank":
                shutil.copy(self.folder / "accounts.csv", self.folder / "bank")
                self.folder /= "bank"
        else:
            assert setting == "empty", setting

    def bank(self):
        self.run(
            "sh",
            """
            card4e init ./bank
            export CARD4E_CONFIG=bank/card4e.toml
            card4e import accounts accounts.csv
            card4e caller create shop
            card4e serve
            """,
        )

    def run(self, language, text):
        """What it prints; a failure shows all of it."""
        ending, command = RUNNERS[language]
        script = self.state / f"block.{ending}"
        script.write_text(text.replace(PRINTED_FIRST, self.address), encoding="utf-8")
        done = subprocess.run(
            [*command, str(script)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            timeout=BLOCK_SECONDS,
        )
        said = (done.stdout + done.stderr).replace(self.address, PRINTED_FIRST)
        assert done.returncode == 0, f"ends with {done.returncode}:\n{said}"
        return said

    def close(self):
        pids = self.state / "pids"
        for pid in pids.read_text().split() if pids.exists() else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)


def read_data(block):
    """Fails where a reader's program would."""
    if block.language == "json":
        json.loads(block.text)
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "yaml":
        script = "require 'yaml'; YAML.safe_load(STDIN.read)"
        subprocess.run([need_tool("ruby"), "-e", script], input=block.text, encoding="utf-8", check=True)


@pytest.mark.parametrize("page", [name for name in pages() if "```" in (ROOT / name).read_text(encoding="utf-8")])
def test_data(page):
    for block in blocks((ROOT / page).read_text(encoding="utf-8")):
        try:
            read_data(block)
        except (ValueError, subprocess.CalledProcessError) as wrong:
            pytest.fail(f"{page}:{block.line}: {wrong}", pytrace=False)


@pytest.mark.parametrize("page", pages())
def test_page(page, tmp_path, record_property):
    text = (ROOT / page).read_text(encoding="utf-8")
    todo = [block for block in blocks(text) if block.language in CODE or block.marker == "output"]
    if not todo:
        return
    desk, said = Desk(tmp_path, text), ""
    try:
        for block in todo:
            where = f"{page}:{block.line}"
            if block.reason():
                record_property("not run", f"{where}: {block.reason()}")
                continue
            if block.marker.startswith("run: ") and page == "docs/encryption.md":
                record_property("not run", f"{where}: tests/clients/test_encryption.py and node/encryption.test.mjs run it")
                continue
            if block.marker == "output":
                assert re.fullmatch(like(block.text.strip()), said.strip(), re.DOTALL), f"{where}: it printed\n{said}"
                continue
            assert block.language in RUNNERS, f"{where}: {block.language} is not run here: mark it <!-- not run: why -->"
            try:
                said = desk.run(block.language, block.text)
            except (AssertionError, subprocess.TimeoutExpired) as failure:
                pytest.fail(f"{where}: {failure}", pytrace=False)
            expected = ".*?".join(like(line) for line in block.expected())
            assert re.search(expected, said, re.DOTALL), f"{where}: {block.expected()} is not in\n{said}"
    finally:
        desk.close()


def test_blocks_are_found_as_people_see_them():
    page = "a\n\n<!-- not run: no\nmarker -->\n```sh\none\n```\n<!-- not run: why -->\n\n1. x\n\n   ```sh\n   two\n     three\n   ```\n"
    first, second = blocks(page)
    assert (first.text, first.reason()) == ("one\n", None)
    assert (second.text, second.line) == ("two\n  three\n", 12)
    assert blocks("<!-- not run: why -->\n```sh\nx\n```\n")[0].reason() == "why"


def test_alert_rules_and_dashboard(tmp_path):
    """What Prometheus itself says of the rules; that they name what is counted is a test in Rust."""
    rules = ROOT / "packaging" / "prometheus" / "card4e.rules.yml"
    done = subprocess.run([need_tool("promtool"), "check", "rules", str(rules)], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    tests = ROOT / "packaging" / "prometheus" / "card4e.rules.test.yml"
    done = subprocess.run([need_tool("promtool"), "test", "rules", str(tests)], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    dashboard = json.loads((ROOT / "packaging" / "grafana" / "card4e.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "5m")
            file = tmp_path / "one.yml"
            file.write_text(json.dumps({"groups": [{"name": "a", "rules": [{"record": "a:b", "expr": expression}]}]}))
            done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, encoding="utf-8")
            assert done.returncode == 0, f"{expression}: {done.stdout} {done.stderr}"
