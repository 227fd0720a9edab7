#!/usr/bin/env bash
# Measures the micro-benchmarks by the clock, and compares with the run before, which is kept in
# target/criterion. Without the build it takes four to five minutes.
#
#   ONLY=word   only what has this in its name
#   RECORD=1    write the table of all into docs/performance.md
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-build.sh
mkdir -p target/criterion
begun=target/criterion/begun
touch "$begun"
cargo bench --workspace --features tidewire-postgres/bench --bench costs -- ${ONLY:+"$ONLY"}

# What was measured now, and not what older runs left behind.
if [ -n "${RECORD:-}" ] && [ -z "${ONLY:-}" ]; then
    find target/criterion -path '*/new/estimates.json' -newer "$begun" -print0 |
        python3 -c '
import json, pathlib, sys

def row(path):
    case = json.loads(path.with_name("benchmark.json").read_text())
    found = json.loads(path.read_text())["median"]
    each = (case.get("throughput") or {}).get("Elements", 1)
    low, high = (found["confidence_interval"][side + "_bound"] / each for side in ("lower", "upper"))
    name, middle = case["full_id"], found["point_estimate"] / each
    return f"| `{name}` | {middle:.{places(middle)}f} | {low:.{places(low)}f} to {high:.{places(high)}f} |"

def places(nanoseconds):
    return 0 if nanoseconds >= 100 else 1

paths = [pathlib.Path(name) for name in sys.stdin.read().split("\0") if name]
rows = sorted(row(path) for path in paths)
table = "\n".join(["| case | median, ns | 95 % confident |", "|---|---:|---:|", *rows])
document = pathlib.Path("docs/performance.md")
before, rest = document.read_text().split("<!-- micro -->\n", 1)
_, after = rest.split("<!-- /micro -->", 1)
document.write_text(f"{before}<!-- micro -->\n\n{table}\n\n<!-- /micro -->{after}")
'
fi
