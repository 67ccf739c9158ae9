#!/usr/bin/env bash
# Measures how card4e grows: docs/performance/growth.sh ACCOUNTS... Writes a table for growth.md (and growth-plot its plot).
# Needs a release build, and about 400 bytes of disk an account in TMPDIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
card4e=$PWD/target/release/card4e
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

printf 'load %s on %s cores\n\n' "$(cut -d' ' -f1 /proc/loadavg)" "$(nproc)"
echo '| accounts | import, rows/s | accounts.db, bytes an account | accounts.table | look-up SQLite p50 / p99 us | look-up table p50 / p99 us | start to first answer ms | memory after it MiB |'
echo '|---|---|---|---|---|---|---|---|'
for accounts in "${@:-10000}"; do
  bank=$work/$accounts
  "$card4e" init "$bank" >/dev/null
  sed -i 's/test_land = false/test_land = true/; s/127.0.0.1:4400/127.0.0.1:0/' "$bank/card4e.toml"
  export CARD4E_CONFIG=$bank/card4e.toml
  "$card4e" caller create shop >/dev/null
  token=$("$card4e" credential create shop --kind acedata --json | sed -E 's/.*"secret":"([^"]+)".*/\1/')
  "$card4e" synth --accounts "$accounts" --seed 7 --out "$work/accounts.csv"
  "$card4e" import accounts "$work/accounts.csv" --json >"$work/import"
  "$card4e" accounts check --look-ups 100000 --json >"$work/check"
  row=$(sed -n 2p "$work/accounts.csv")
  body=$(awk -F, '{ printf "{\"bank_card\":\"%s\",\"name\":\"%s\",\"id_card\":\"%s\",\"phone\":\"%s\"}", $1, $2, $4, $5 }' <<<"$row")
  # Twice: the first start of an installation makes what is made once.
  for start in first second; do
    rm -f "$work/ready"
    began=$(date +%s%N)
    "$card4e" serve --ready-file "$work/ready" >/dev/null 2>"$work/log" &
    server=$!
    until [[ -s $work/ready ]]; do :; done
    curl -s "http://$(cat "$work/ready")/identity/bankcard/check-4e" -H "authorization: Bearer $token" -H 'content-type: application/json' -d "$body" >"$work/answer"
    took=$((($(date +%s%N) - began) / 1000))
    grep -q '"result": *"0"' "$work/answer" || { cat "$work/answer" "$work/log" >&2; echo "the $start start does not answer" >&2; exit 1; }
    memory=$(awk '/RssAnon/ { print int($2 / 1024) }' "/proc/$server/status")
    kill "$server"
    wait "$server"
  done
  field() { sed -E "s/.*\"$1\":([0-9.]+).*/\1/" "$work/$2"; }
  us() { sed -E "s/.*\"$1\":\{\"p50\":([0-9.]+),\"p99\":([0-9.]+).*/\1 \/ \2/" "$work/check"; }
  printf '| %s | %s | %s | %s | %s | %s | %s | %s |\n' "$accounts" "$(field rows_per_second import)" \
    "$(($(field file_bytes check) / accounts))" "$(($(stat -c %s "$bank/data/accounts.table") / accounts))" \
    "$(us look_up_us)" "$(us table_look_up_us)" "$((took / 1000)).$((took % 1000 / 100))" "$memory"
  rm -rf "$bank"
done
