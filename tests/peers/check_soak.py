"""Checks the rows of a soak (tests/promise/soak.rs) with readers that are not ours.

usage: check_soak.py FOLDER, and on stdin a JSON object:
  complete: {PATH: {"first": n or null, "last": n, "base_us": t or null, "step_us": t}}: every number from the first (or the first that
            there is) to the last is there once with quality good, at base + n * step if a base is given
  away:     {PATH: [[from_us, to_us], ...]}: no good value between these times

Prints JSON: what each path has, and the problems (none: all is well).
"""

import json
import sys

import duckdb
from deltalake import DeltaTable

wanted = json.load(sys.stdin)
db = duckdb.connect()
db.execute("set timezone = 'UTC'")
db.execute(f"create view t as select * from read_parquet({DeltaTable(sys.argv[1]).file_uris()!r}, hive_partitioning = false)")
problems, found = [], {}

for path, rule in wanted["complete"].items():
    rows = db.execute(
        """select value_long, epoch_us(ts), is_historical from t where path like '%' || ? and quality like 'good%'
           and value_long is not null order by value_long, ts""",
        [path],
    ).fetchall()
    if rule["base_us"] is not None:
        # "Still so" after a connection was lost has the server's time; what the source said has the source's.
        rows = [row for row in rows if row[1] == rule["base_us"] + row[0] * rule["step_us"]]
    numbers = [row[0] for row in rows]
    first = rule["first"] if rule["first"] is not None else min(numbers, default=0)
    missing = sorted(set(range(first, rule["last"] + 1)) - set(numbers))
    double = len(numbers) - len(set(numbers))
    found[path] = {"rows": len(rows), "first": first, "last": max(numbers, default=None), "historical": sum(row[2] for row in rows)}
    if missing:
        problems.append(f"{path}: {len(missing)} missing, such as {missing[:5]}")
    if double:
        problems.append(f"{path}: {double} double")

for path, windows in wanted["away"].items():
    good = 0
    for start, end in windows:
        rows = db.execute(
            "select epoch_us(ts), quality from t where path like '%' || ? and quality like 'good%' and epoch_us(ts) between ? and ?",
            [path, start, end],
        ).fetchall()
        if rows:
            problems.append(f"{path}: good while its peer was away ({start} to {end}): {rows[:3]}")
    marks = db.execute(
        "select quality, count(*) from t where path like '%' || ? and quality not like 'good%' group by all order by 2 desc", [path]
    ).fetchall()
    found[path] = {**found.get(path, {}), "not good": dict(marks)}

print(json.dumps({"found": found, "problems": problems}))
