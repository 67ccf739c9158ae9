"""One installation from its first day to its restored backup, as an operator lives it: real commands, the
official SDKs over https, a hundred thousand made-up accounts.
"""

import csv
import json
import os
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from acedata_clients import PATH, body_of
from harness import ROOT, Server, client_environment, missing, need_module
from tencent_clients import PythonSync, Refused

ACCOUNTS = 100_000
# What each outcome is called on the Tencent wire.
CODES = {
    "PASS": "0",
    "HOLDER_MISMATCH": "-6",
    "CNP_DISABLED": "-7",
    "CARD_SEIZED": "-8",
    "PAN_INVALID": "-9",
    "CARD_INACTIVE": "-11",
    "CARD_FRAUD": "-12",
    "CARD_LOST": "-13",
    "CARD_EXPIRED": "-14",
    "CARD_RESTRICTED": "-15",
    "CARD_PIN_LOCKED": "-16",
    "CARD_ABNORMAL": "-21",
}


class Bank:
    """An installation and the commands its operator types."""

    def __init__(self, folder):
        self.binary = Path(os.environ.get("CARD4E_BIN", ROOT / "target" / "release" / "card4e"))
        if not self.binary.is_file():
            missing(f"the server {self.binary} (cargo build --release)")
        self.folder = folder
        self.config = folder / "bank" / "card4e.toml"

    def run(self, *arguments, stdin=None, config=True):
        """A command that must succeed; its JSON."""
        place = ["--json", "--config", str(self.config)] if config else []
        done = subprocess.run(
            [str(self.binary), *map(str, arguments), *place],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            encoding="utf-8",
            env=client_environment(),
            timeout=300,
        )
        assert done.returncode == 0, f"{arguments}: {done.returncode} {done.stdout} {done.stderr}"
        return json.loads(done.stdout) if config else done.stdout

    def init(self):
        said = self.run("init", self.config.parent, config=False)
        self.operator = next(line.strip() for line in said.splitlines() if "platform-v1-" in line)
        self.run("tls", "dev-ca", "--out", self.folder / "tls", config=False)
        text = self.config.read_text(encoding="utf-8")
        for old, new in {
            "127.0.0.1:4400": "127.0.0.1:0",
            "test_land = false": "test_land = true",
            'free_quota = "10"': 'free_quota = "100000"',
            "requests_per_second = 20": "requests_per_second = 0",
            '# certificate = "server.pem"': f'certificate = "{self.folder}/tls/server.pem"',
            '# key = "server-key.pem"': f'key = "{self.folder}/tls/server-key.pem"',
        }.items():
            assert old in text, old
            text = text.replace(old, new, 1)
        self.config.write_text(text, encoding="utf-8")

    def serve(self):
        ca = str(self.folder / "tls" / "ca.pem")
        self.serves = getattr(self, "serves", 0) + 1
        return Server(self.folder / f"serve-{self.serves}", ["serve", "--config", str(self.config)], ca=ca)

    def synthetic(self):
        """Accounts, and questions about them with the outcome each has."""
        accounts, claims = self.folder / "accounts.csv", self.folder / "claims.csv"
        self.run(
            "synth", "--accounts", ACCOUNTS, "--seed", 7, "--out", accounts,
            "--claims", claims, "--questions", 20_000, config=False,
        )  # fmt: skip
        with claims.open(encoding="utf-8", newline="") as file:
            return accounts, list(csv.DictReader(file))


def sample(claims, each=4):
    """Some questions of every outcome, about different cards: nobody is asked about too often."""
    chosen, cards, count = [], set(), {}
    for claim in claims:
        outcome = claim["outcome"]
        if claim["bank_card"] not in cards and count.get(outcome, 0) < each:
            count[outcome] = count.get(outcome, 0) + 1
            cards.add(claim["bank_card"])
            chosen.append(claim)
    return chosen


def elements(claim):
    return {
        "Name": claim["name"],
        "BankCard": claim["bank_card"],
        "IdCard": claim["id_number"],
        "Phone": claim["phone"],
    }


class Shop:
    """A caller with both kinds of credentials, over https."""

    def __init__(self, bank, server):
        self.server = server
        bank.run("caller", "create", "shop")
        signing = bank.run("credential", "create", "shop", "--kind", "tencent")
        self.signing = signing["credential"]
        self.keys = {"secret_id": signing["secret_id"], "secret_key": signing["secret"]}
        self.token = bank.run("credential", "create", "shop", "--kind", "acedata")["secret"]
        self.client = None

    def tencent(self, claim, **keys):
        python = PythonSync()
        if keys or self.client is None:
            options = {"protocol": "https", "certification": self.server.ca, **self.keys, **keys}
            client = python.client(self.server.address, **options)
            self.client = client if not keys else self.client
        else:
            client = self.client
        return python.send(client, elements(claim)).result

    def at(self, server):
        """The same caller, where the server is now."""
        self.server, self.client = server, None

    def acedata(self, claim):
        """HTTP status and what the body says."""
        request = urllib.request.Request(
            self.server.url + PATH,
            data=json.dumps(body_of(elements(claim))).encode(),
            headers={"authorization": f"Bearer {self.token}", "content-type": "application/json"},
        )
        try:
            with self.server.opener.open(request, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)


def operate(server, token, method, body):
    request = urllib.request.Request(
        f"{server.url}/api/v1/accounts",
        method=method,
        data=json.dumps(body).encode(),
        headers={"authorization": f"Bearer {token}"},
    )
    with server.opener.open(request, timeout=60) as answer:
        return json.load(answer)


def test_from_the_first_day_to_a_restored_backup(tmp_path):
    need_module("tencentcloud.common")
    bank = Bank(tmp_path)
    bank.init()
    accounts, claims = bank.synthetic()
    server = bank.serve()
    try:
        shop = Shop(bank, server)

        # Import while the SDK asks: every answer is either "no such account" or the right one.
        questions = sample(claims)
        asked, wrong, done = [], [], threading.Event()

        def ask_meanwhile():
            python = PythonSync()
            client = python.client(server.address, protocol="https", certification=server.ca, **shop.keys)
            for claim in claims[5000:]:
                if done.is_set():
                    return
                result = python.send(client, elements(claim)).result
                asked.append(result)
                # A card is asked about ten times a day at most.
                if result not in ("-9", "-19", CODES[claim["outcome"]]):
                    wrong.append((claim["outcome"], result))

        asking = threading.Thread(target=ask_meanwhile)
        asking.start()
        importing = subprocess.Popen(
            [str(bank.binary), "import", "accounts", "--json", "--batch", "2000"]
            + ["--config", str(bank.config), str(accounts)],
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        # A lost card does not wait for the file, nor for the import to end.
        lost = {**next(c for c in claims if c["outcome"] == "PASS"), "bank_card": "6217000000000000012"}
        account = {key: lost[key] for key in ("bank_card", "name", "id_number", "phone")}
        assert operate(server, bank.operator, "PUT", {**account, "status": "lost"})["status"] == "lost"
        assert shop.tencent(lost) == "-13"
        summary = json.loads(importing.communicate(timeout=300)[0])
        assert importing.returncode == 0
        done.set()
        asking.join(60)
        assert (summary["put"], summary["rejected"]) == (ACCOUNTS, 0), summary
        assert asked and not wrong, (len(asked), wrong[:5])

        # The right answer for every state, on both wires.
        assert {claim["outcome"] for claim in questions} >= {"PASS", "HOLDER_MISMATCH", "CARD_LOST", "CARD_EXPIRED"}
        fresh = [claim for claim in questions if claim["bank_card"] not in {c["bank_card"] for c in claims[5000:5000 + len(asked)]}]
        for claim in fresh:
            assert shop.tencent(claim) == CODES[claim["outcome"]], claim["outcome"]
        status, told = shop.acedata(lost)
        assert (status, told["result"]) == (200, "-11")

        # Rotation: the old key signs until its overlap ends.
        rotated = bank.run("credential", "rotate", shop.signing, "--overlap", "1h")
        passing = [claim for claim in fresh if claim["outcome"] == "PASS"]
        assert shop.tencent(passing[0]) == "0"
        assert shop.tencent(passing[0], secret_key=rotated["secret"]) == "0"
        shop.keys["secret_key"] = rotated["secret"]

        # Restart: everything is as it was.
        before = bank.run("caller", "list")
        server.stop()
        server = bank.serve()
        shop.at(server)
        assert bank.run("caller", "list") == before
        assert shop.tencent(passing[1]) == "0"

        # Suspended, resumed, out of balance, recharged.
        bank.run("caller", "suspend", "shop")
        with pytest.raises(Refused) as refused:
            shop.tencent(passing[1])
        assert refused.value.code == "UnauthorizedOperation.ChargeStatusException"
        bank.run("caller", "resume", "shop")
        bank.run("caller", "set", "shop", "--price", "1000000")
        with pytest.raises(Refused) as refused:
            shop.tencent(passing[1])
        assert refused.value.code == "UnauthorizedOperation.Arrears"
        assert shop.acedata(passing[1])[1]["error"]["code"] == "used_up"
        bank.run("caller", "recharge", "shop", "1000000")
        assert shop.tencent(passing[1]) == "0"
        bank.run("caller", "set", "shop", "--price", "default")

        # Backup while it answers, wipe, restore: the same accounts, the same books, the audit holds.
        digest = bank.run("accounts", "check")["digest"]
        bank.run("backup", tmp_path / "backup")
        books = bank.run("caller", "list")
        after_backup = shop.tencent(passing[2])
        server.stop()
        audit = bank.run("audit", "check")
        shutil.rmtree(bank.config.parent / "data")
        bank.run("restore", tmp_path / "backup")
        restored = bank.run("audit", "check")
        assert restored["answers"] == audit["answers"] - 1, "the one answer after the backup is lost"
        assert bank.run("accounts", "check")["digest"] == digest
        server = bank.serve()
        shop.at(server)
        assert bank.run("caller", "list") == books
        assert shop.tencent(passing[2]) == after_backup == "0"
        server.stop()
        assert bank.run("audit", "check")["answers"] == audit["answers"]
    finally:
        server.stop()
