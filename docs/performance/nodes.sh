#!/usr/bin/env bash
# Measures what a question costs on one, two and three nodes that share a PostgreSQL: docs/performance/nodes.sh [SECONDS]
# Needs a release build and Debian's postgresql; run as root or as the user that may run PostgreSQL. Everything is on this machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
seconds=${1:-6}
card4e=$PWD/target/release/card4e
postgres=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
work=$(mktemp -d)
chmod 755 "$work"
pids=()
stop() { kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"; }
trap stop EXIT

# PostgreSQL does not run as root.
as=()
if [[ $(id -u) == 0 ]]; then as=(setpriv --reuid postgres --regid postgres --clear-groups); fi
install -d "$work/pg"
[[ ${#as[@]} == 0 ]] || chown postgres:postgres "$work/pg"
port=4500
"${as[@]}" "$postgres/initdb" -A trust -U card4e -E UTF8 --no-locale -D "$work/pg/data" >/dev/null
# As it comes: every commit is synced.
"${as[@]}" "$postgres/postgres" -D "$work/pg/data" -h 127.0.0.1 -p $port -k '' 2>"$work/pg.log" &
database=$!
pids+=($database)
until "$postgres/pg_isready" -q -h 127.0.0.1 -p $port; do sleep 0.1; done
"$postgres/createdb" -h 127.0.0.1 -p $port -U card4e card4e

"$card4e" init "$work/1" --store "postgres://card4e@127.0.0.1:$port/card4e" >/dev/null
sed -i 's/test_land = false/test_land = true/; s/^requests_per_second = 20 /requests_per_second = 0 /; s/^per_card = 10/per_card = 0/; s/^per_value = 500/per_value = 0/; s/^lock_after = 3/lock_after = 0/; s/^node = ""/node = "1"/' "$work/1/card4e.toml"
export CARD4E_CONFIG=$work/1/card4e.toml
"$card4e" synth --accounts 20000 --seed 7 --out "$work/a.csv" --claims "$work/c.csv"
"$card4e" import accounts "$work/a.csv" --json >/dev/null
"$card4e" caller create shop --unlimited >/dev/null
CARD4E_TOKEN=$("$card4e" credential create shop --kind acedata --json | sed -E 's/.*"(secret|token)":"([^"]*)".*/\2/')
export CARD4E_TOKEN
for node in 2 3; do
  mkdir "$work/$node"
  sed "s/^node = \"1\"/node = \"$node\"/; s/127.0.0.1:4400/127.0.0.1:440$node/" "$work/1/card4e.toml" >"$work/$node/card4e.toml"
  cp "$work/1/root.key" "$work/$node/"
done

# Hundredths of a second of CPU of a process and of those it has started and that have ended.
ticks() { cat /proc/"$1"/stat 2>/dev/null | awk '{ print $14 + $15 + $16 + $17 }'; }
of_database() { local sum=0 pid; for pid in $database $(pgrep -P $database); do sum=$((sum + $(ticks "$pid"))); done; echo $sum; }

printf 'load %s on %s cores\n\n' "$(cut -d' ' -f1 /proc/loadavg)" "$(nproc)"
echo '| nodes | connections each | answers/s in all | p50 | p99 | CPU a question: nodes | PostgreSQL |'
echo '|---|---|---|---|---|---|---|'
for nodes in 1 2 3; do
  running=()
  for node in $(seq $nodes); do
    "$card4e" serve --config "$work/$node/card4e.toml" --cores 1 --ready-file "$work/ready$node" >"$work/$node.log" 2>&1 &
    running+=($!)
    pids+=($!)
  done
  for node in $(seq $nodes); do until [[ -s $work/ready$node ]]; do sleep 0.1; done; rm "$work/ready$node"; done
  sleep 2
  before=$(of_database)
  own=0
  for pid in "${running[@]}"; do own=$((own - $(ticks "$pid"))); done
  asking=()
  for node in $(seq $nodes); do
    listen=$([[ $node == 1 ]] && echo 4400 || echo 440$node)
    "$card4e" bench --url "http://127.0.0.1:$listen" --wire acedata --claims "$work/c.csv" --connections 64 --warm-up 0 --seconds "$seconds" --json >"$work/bench$node" &
    asking+=($!)
  done
  wait "${asking[@]}"
  for pid in "${running[@]}"; do own=$((own + $(ticks "$pid"))); done
  after=$(of_database)
  for node in $(seq $nodes); do cat "$work/bench$node"; done |
    sed -E 's/.*"requests":([0-9]+),"requests_per_second":([0-9.]+),"p50_us":([0-9]+),"p99_us":([0-9]+).*"errors":([0-9]+).*/\1 \2 \3 \4 \5/' |
    awk -v nodes=$nodes -v own=$own -v db=$((after - before)) '
      { n += $1; rate += $2; p50 += $3; if ($4 > p99) p99 = $4; errors += $5 }
      END { printf "| %d | 64 | %d | %.1f ms | %.1f ms | %.1f us | %.1f us |%s\n", nodes, rate, p50 / NR / 1000, p99 / 1000, own * 10000 / n, db * 10000 / n, errors ? " " errors " errors" : "" }'
  kill "${running[@]}"
  wait "${running[@]}" 2>/dev/null || true
done
