#!/usr/bin/env bash
# Measures how questions are answered while an import runs: docs/performance/while-importing.sh [ACCOUNTS] [RATE]
# Needs a release build, and some 700 bytes of disk an account in TMPDIR. The server has core 0; who asks and the import have core 1,
# where who asks goes first (as root), so that a late question is the server's fault. The same questions a second, alone and then beside it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
accounts=${1:-1000000} rate=${2:-4000}
card4e=$PWD/target/release/card4e
work=$(mktemp -d)
server=
trap '[[ -z $server ]] || kill "$server"; wait; rm -rf "$work"' EXIT

"$card4e" init "$work/bank" >/dev/null
sed -i 's/test_land = false/test_land = true/; s/^requests_per_second = 20 /requests_per_second = 0 /; s/^per_card = 10/per_card = 0/; s/^per_value = 500/per_value = 0/; s/^lock_after = 3/lock_after = 0/; s/127.0.0.1:4400/127.0.0.1:4480/' "$work/bank/card4e.toml"
export CARD4E_CONFIG=$work/bank/card4e.toml
"$card4e" caller create shop --unlimited >/dev/null
CARD4E_TOKEN=$("$card4e" credential create shop --kind acedata --json | sed -E 's/.*"secret":"([^"]+)".*/\1/')
export CARD4E_TOKEN
"$card4e" synth --accounts "$accounts" --seed 7 --out "$work/accounts.csv" --claims "$work/claims.csv" --questions 20000
"$card4e" synth --accounts "$accounts" --seed 8 --out "$work/others.csv"
"$card4e" import accounts "$work/accounts.csv" --json >/dev/null
first=()
if [[ $(id -u) == 0 ]]; then first=(nice -n -12); fi
"${first[@]}" taskset -c 0 "$card4e" serve --cores 1 --ready-file "$work/ready" >/dev/null 2>"$work/log" &
server=$!
until [[ -s $work/ready ]]; do sleep 0.05; done

# asked SECONDS: one line of figures.
asked() {
  "${first[@]}" taskset -c 1 "$card4e" bench --url http://127.0.0.1:4480 --wire acedata --connections 16 --rate "$rate" \
    --seconds "$1" --claims "$work/claims.csv" --json |
    python3 -c 'import json, sys; print("{requests_per_second:,.0f} | {p50_us:,} | {p99_us:,} | {p999_us:,} | {max_us:,} | {server_cpu_us_per_request:.1f} |".format(**json.load(sys.stdin)))'
}

printf '%s accounts and as many others imported, %s questions a second, load %s on %s cores\n\n' "$accounts" "$rate" "$(cut -d' ' -f1 /proc/loadavg)" "$(nproc)"
echo '| | answers/s | p50 us | p99 us | p99.9 us | longest us | CPU us |'
echo '|---|---|---|---|---|---|---|'
echo "| alone | $(asked 8)"
began=$(date +%s%N)
(
  taskset -c 1 "$card4e" import accounts "$work/others.csv" --json >"$work/import"
  echo $((($(date +%s%N) - began) / 1000000)) >"$work/took"
) &
for part in 1 2 3 4 5 6 7 8; do
  [[ ! -e $work/took ]] || break
  echo "| while importing, part $part | $(asked 6)"
done
wait $!
printf '\nthe import took %s ms\n' "$(cat "$work/took")"
