#!/usr/bin/env bash
# Measures bulk verification: docs/performance/bulk.sh ACCOUNTS ROWS [ROUNDS]. Writes a table for bulk.md.
# Needs a release build, python3 with duckdb (pip install duckdb), and about 700 bytes of disk an account in TMPDIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
accounts=${1:?how many accounts}
rows=${2:?how many rows}
rounds=${3:-3}
card4e=$PWD/target/release/card4e
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$card4e" init "$work/bank" >/dev/null
sed -i 's/test_land = false/test_land = true/; s/^bulk_rows_max = .*/bulk_rows_max = 10000000000/' "$work/bank/card4e.toml"
sed 's/^per_card = 10/per_card = 0/; s/^per_value = 500/per_value = 0/; s/^lock_after = 3/lock_after = 0/' -i "$work/bank/card4e.toml"
export CARD4E_CONFIG=$work/bank/card4e.toml
"$card4e" caller create shop --unlimited >/dev/null
"$card4e" synth --accounts "$accounts" --seed 7 --out "$work/accounts.csv"
"$card4e" import accounts "$work/accounts.csv" --json >"$work/import"

# Every fifth question has another mobile. The rows are shuffled, as a file of somebody else's is.
{
  echo bank_card,name,id_type,id_number,phone
  tail -n +2 "$work/accounts.csv" | shuf -n "$rows" --random-source=<(yes) |
    awk -F, -v OFS=, 'NR % 5 == 0 { $5 = "16199999999" } { print $1, $2, $3, $4, $5 }'
} >"$work/questions.csv"

cat >"$work/join.py" <<'PY'
import duckdb, os, sys, time
def cpu():
    used = os.times()
    return used.user + used.system
work, form = sys.argv[1], sys.argv[2]
db = duckdb.connect(config={"threads": 2})
text = {c: "VARCHAR" for c in ["bank_card", "name", "id_type", "id_number", "phone"]}
began = time.time()
db.execute(f"create table a as select * from read_csv('{work}/accounts.csv', header=true, all_varchar=true)")
loaded = time.time()
before = cpu()
same = "case when a.bank_card is null then 'PAN_INVALID' when a.name=q.name and a.id_number=q.id_number and a.phone=q.phone then 'PASS' else 'HOLDER_MISMATCH' end"
join = f"select q.*, {same} as outcome from read_csv('{work}/questions.csv', header=true, all_varchar=true) q left join a on a.bank_card = q.bank_card"
if form == "count":
    counts = db.execute(f"select outcome, count(*) from ({join}) group by 1 order by 1").fetchall()
else:
    db.execute(f"copy ({join}) to '{work}/duckdb.csv'")
print(loaded - began, time.time() - loaded, cpu() - before)
PY

printf '%s accounts, %s rows, load %s on %s cores\n\n' "$accounts" "$rows" "$(cut -d' ' -f1 /proc/loadavg)" "$(nproc)"
echo '| | seconds | rows/s | CPU seconds | rows per second of CPU |'
echo '|---|---|---|---|---|'
line() { awk -v name="$1" -v rows="$rows" -v s="$2" -v cpu="$3" 'BEGIN { printf "| %s | %.2f | %d | %.2f | %d |\n", name, s, rows / s, cpu, rows / cpu }'; }
for round in $(seq "$rounds"); do
  rm -f "$work"/answers.csv*
  /usr/bin/time -f '%e %U %S' -o "$work/time" "$card4e" verify-file --caller shop "$work/questions.csv" "$work/answers.csv" --json >"$work/out"
  line "verify-file: all checks, settled, CSV written" "$(sed -E 's/.*"seconds":([0-9.]+).*/\1/' "$work/out")" "$(awk '{ print $2 + $3 }' "$work/time")"
  for form in csv count; do
    read -r load join cpu < <("$python" "$work/join.py" "$work" "$form")
    line "DuckDB, hash join in memory, $form" "$join" "$cpu"
  done
done
printf '\nDuckDB loads the accounts in %s s; card4e imports them in %s s\n' "$load" "$(sed -E 's/.*"seconds":([0-9.]+).*/\1/' "$work/import")"
cut -d, -f6 "$work/answers.csv" | sort | uniq -c | sort -rn | head -5
