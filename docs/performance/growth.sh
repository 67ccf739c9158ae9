#!/usr/bin/env bash
# Measures how card4e grows: docs/performance/growth.sh ACCOUNTS... Writes a table for growth.md (and growth-plot its plot).
# Needs a release build (CARD4E names another one), Python 3, and about 700 bytes of disk an account in TMPDIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
card4e=${CARD4E:-$PWD/target/release/card4e}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# first_answer SETTINGS TOKEN ROW: starts the server six times and asks about the account of that row. Prints the median of the last five,
# milliseconds from the fork of the process to the true answer, and the memory of its own that it then has, MiB. A program that asks would
# have to be started too, which takes ten.
first_answer() {
  python3 - "$card4e" "$@" <<'PYTHON'
import json, re, socket, statistics, subprocess, sys, time
card4e, settings, token, row = sys.argv[1:]
card, name, _, number, phone, *_ = open(row).read().strip().split(",")
body = json.dumps({"bank_card": card, "name": name, "id_card": number, "phone": phone}).encode()
head = ("POST /identity/bankcard/check-4e HTTP/1.1", "host: localhost", f"authorization: Bearer {token}",
        "content-type: application/json", f"content-length: {len(body)}", "connection: close", "", "")
port = int(re.search(r'^listen = ".*:(\d+)"', open(settings).read(), re.M)[1])

def asked():
    with socket.create_connection(("127.0.0.1", port), timeout=5) as server:
        server.sendall("\r\n".join(head).encode() + body)
        return b"".join(iter(lambda: server.recv(4096), b""))

def started():
    began = time.perf_counter()
    server = subprocess.Popen([card4e, "serve", "--config", settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                answer = asked()
                break
            except ConnectionError:
                if server.poll() is not None or time.perf_counter() - began > 30:
                    sys.exit("the server does not answer")
                time.sleep(0.0005)
        took = time.perf_counter() - began
        if not re.search(rb'"result": *"0"', answer):
            sys.exit(f"the account is not answered as it is: {answer.decode()}")
        return 1000 * took, int(re.search(r"RssAnon:\s+(\d+)", open(f"/proc/{server.pid}/status").read())[1]) // 1024
    finally:
        server.terminate()
        server.wait()

# The first start of an installation makes what is made once.
runs = [started() for _ in range(6)][1:]
print(f"{statistics.median(took for took, _ in runs):.1f}", max(memory for _, memory in runs))
PYTHON
}

printf 'load %s on %s cores\n\n' "$(cut -d' ' -f1 /proc/loadavg)" "$(nproc)"
echo '| accounts | import, rows/s | accounts.db, bytes an account | accounts.table | look-up SQLite p50 / p99 us | look-up table p50 / p99 us | start to first answer ms | memory after it MiB |'
echo '|---|---|---|---|---|---|---|---|'
for accounts in "${@:-10000}"; do
  bank=$work/$accounts
  "$card4e" init "$bank" >/dev/null
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  sed -i "s/test_land = false/test_land = true/; s/127.0.0.1:4400/127.0.0.1:$port/" "$bank/card4e.toml"
  export CARD4E_CONFIG=$bank/card4e.toml
  "$card4e" caller create shop >/dev/null
  token=$("$card4e" credential create shop --kind acedata --json | sed -E 's/.*"secret":"([^"]+)".*/\1/')
  "$card4e" synth --accounts "$accounts" --seed 7 --out "$work/accounts.csv"
  "$card4e" import accounts "$work/accounts.csv" --json >"$work/import"
  "$card4e" accounts check --look-ups 100000 --json >"$work/check"
  sed -n 2p "$work/accounts.csv" >"$work/row"
  read -r took memory < <(first_answer "$bank/card4e.toml" "$token" "$work/row")
  field() { sed -E "s/.*\"$1\":([0-9.]+).*/\1/" "$work/$2"; }
  us() { sed -E "s/.*\"$1\":\{\"p50\":([0-9.]+),\"p99\":([0-9.]+).*/\1 \/ \2/" "$work/check"; }
  printf '| %s | %s | %s | %s | %s | %s | %s | %s |\n' "$accounts" "$(field rows_per_second import)" \
    "$(($(field file_bytes check) / accounts))" "$(($(stat -c %s "$bank/data/accounts.table") / accounts))" \
    "$(us look_up_us)" "$(us table_look_up_us)" "$took" "$memory"
  rm -rf "$bank"
done
