#!/usr/bin/env bash
# Measures look-ups by themselves, alone and while an import runs: docs/performance/look-ups-while-importing.sh [ACCOUNTS]
# One thread on core 0 looks accounts up as fast as it can, as a core of a server does; the import, of as many other accounts, has core 1.
# Needs a release build (CARD4E names another one), Python 3, and some 700 bytes of disk an account in TMPDIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
accounts=${1:-1000000}
card4e=${CARD4E:-$PWD/target/release/card4e}
work=$(mktemp -d)
trap 'wait; rm -rf "$work"' EXIT

"$card4e" init "$work/bank" >/dev/null
sed -i 's/test_land = false/test_land = true/' "$work/bank/card4e.toml"
export CARD4E_CONFIG=$work/bank/card4e.toml
"$card4e" synth --accounts "$accounts" --seed 7 --out "$work/accounts.csv"
"$card4e" synth --accounts "$accounts" --seed 8 --out "$work/others.csv"
"$card4e" import accounts "$work/accounts.csv" --json >/dev/null

# looked_up SECONDS: one line of figures.
looked_up() {
  taskset -c 0 "$card4e" accounts check --seconds "$1" --json | python3 -c 'import json, sys
print("{per_second:,.0f} | {in_table:.0%} | {p50_us:.2f} | {p99_us:.2f} | {longest_us:,.0f} |".format(**json.load(sys.stdin)["rush"]))'
}

printf '%s accounts, and as many others imported; load %s on %s cores\n\n' "$accounts" "$(cut -d' ' -f1 /proc/loadavg)" "$(nproc)"
echo '| | look-ups/s | in the table | p50 us | p99 us | longest us |'
echo '|---|---|---|---|---|---|'
echo "| alone, in the table | $(looked_up 5)"
mv "$work/bank/data/accounts.table" "$work/aside"
echo "| alone, without the table | $(looked_up 5)"
mv "$work/aside" "$work/bank/data/accounts.table"
(
  taskset -c 1 "$card4e" import accounts "$work/others.csv" --json >"$work/import"
  : >"$work/done"
) &
for part in {1..30}; do
  [[ ! -e $work/done ]] || break
  echo "| while importing, part $part | $(looked_up 2)"
done
