#!/usr/bin/env bash
# Measures an import: docs/performance/import.sh ACCOUNTS [SEED]. Writes a table for import.md.
# Needs a release build, and about 350 bytes of disk an account in TMPDIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
accounts=${1:?how many accounts}
seed=${2:-7}
card4e=$PWD/target/release/card4e
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# timed NAME COMMAND...: elapsed and CPU seconds, and the most memory, of a command.
timed() {
  local name=$1 rows=$2
  shift 2
  /usr/bin/time -f '%e %U %S %M' -o "$work/time" "$@" >"$work/out"
  awk -v name="$name" -v rows="$rows" '{
    cpu = $2 + $3
    printf "| %s | %.1f s | %.1f s | %d | %d | %d MiB |\n", name, $1, cpu, rows / $1, rows / (cpu ? cpu : 1), $4 / 1024
  }' "$work/time"
}

field() { sed -E "s/.*\"$1\":\"?([^,\"}]*).*/\1/" "$work/out"; }

# A sandbox's folder has keys that need no settings; both have the same, so that digests can be compared.
for data in a b; do
  mkdir "$work/$data"
  if [[ $data == b ]]; then cp "$work/a/keys.json" "$work/b/"; fi
  "$card4e" sandbox --listen 127.0.0.1:0 --data "$work/$data" --ready-file "$work/ready" >/dev/null &
  server=$!
  until [[ -s $work/ready ]]; do sleep 0.05; done
  kill "$server"
  wait "$server"
done

printf '%s accounts, seed %s, load %s on %s cores\n\n' "$accounts" "$seed" "$(cut -d' ' -f1 /proc/loadavg)" "$(nproc)"
echo '| | elapsed | CPU | rows/s elapsed | rows per second of CPU | memory at most |'
echo '|---|---|---|---|---|---|'
timed synth "$accounts" "$card4e" synth --accounts "$accounts" --seed "$seed" --out "$work/accounts.csv"
timed 'import, new' "$accounts" "$card4e" import accounts --data "$work/a" "$work/accounts.csv" --json
timed 'the same file again' "$accounts" "$card4e" import accounts --data "$work/a" "$work/accounts.csv" --json
timed 'check, with 100,000 look-ups' "$accounts" "$card4e" accounts check --data "$work/a" --look-ups 100000 --json
digest=$(field digest)
printf '\n%s bytes an account; a look-up: p50 %s us, p99 %s us, p99.9 %s us\n' \
  "$(($(field file_bytes) / accounts))" "$(field p50)" "$(field p99)" "$(field p99.9)"

# Killed in the middle, then resumed.
"$card4e" import accounts --data "$work/b" "$work/accounts.csv" --batch 20000 >/dev/null &
import=$!
until (($("$card4e" accounts check --data "$work/b" --json | sed -E 's/.*"accounts":([0-9]+).*/\1/') > accounts / 3)); do sleep 0.2; done
kill -9 "$import"
wait "$import" || true
"$card4e" import accounts --data "$work/b" "$work/accounts.csv" --json >"$work/out"
resumed=$(field resumed_after)
"$card4e" accounts check --data "$work/b" --json >"$work/out"
printf 'killed and resumed after row %s: %s\n' "$resumed" \
  "$([[ $(field digest) == "$digest" ]] && echo 'the same digest' || echo 'ANOTHER DIGEST')"
