"""Reads a Delta table again and again while others write it, with deltalake and DuckDB, and says how often the rows were not
those of a committed version.

usage: read_while.py PATH STOP_FILE

What a version must hold is counted from the log alone: every row that was ever added as new data (dataChange), whatever was
compacted since. deltalake says which version it reads; DuckDB's count must be that of a version between the newest before
and the newest after it read.
"""

import glob
import importlib.util
import json
import os
import sys

import duckdb
from deltalake import DeltaTable

path, stop = sys.argv[1], sys.argv[2]


def extension(name):
    for folder in importlib.util.find_spec("duckdb_ext").submodule_search_locations:
        for file in glob.glob(os.path.join(folder, "extensions", "*", "*", f"{name}.duckdb_extension")):
            return file
    raise SystemExit(f"duckdb-ext-{name} is not installed; see tests/peers/requirements.txt")


rows_at, compactions = [], 0


def expected(version):
    global compactions
    while len(rows_at) <= version:
        new, removed = 0, 0
        with open(os.path.join(path, "_delta_log", f"{len(rows_at):020}.json")) as log:
            for line in log:
                action = json.loads(line)
                if "add" in action and action["add"]["dataChange"]:
                    new += json.loads(action["add"]["stats"])["numRecords"]
                if "remove" in action:
                    assert not action["remove"]["dataChange"]
                    removed += 1
        compactions += removed > 0
        rows_at.append((rows_at[-1] if rows_at else 0) + new)
    return rows_at[version]


db = duckdb.connect()
db.execute(f"LOAD '{extension('delta')}'")
looks, wrong = {"deltalake": 0, "duckdb": 0}, []
COLUMNS = ["agent", "log_epoch", "log_offset", "batch_index"]
while True:
    last = os.path.exists(stop)
    table = DeltaTable(path)
    before = table.version()
    rows = table.to_pyarrow_table(columns=COLUMNS)
    distinct = rows.group_by(COLUMNS).aggregate([]).num_rows
    looks["deltalake"] += 1
    if not rows.num_rows == distinct == expected(before):
        wrong.append(["deltalake", before, rows.num_rows, distinct, expected(before)])
    counted, distinct = db.sql(
        f"SELECT count(*), count(DISTINCT (agent, log_epoch, log_offset, batch_index)) FROM delta_scan('{path}')"
    ).fetchone()
    looks["duckdb"] += 1
    after = DeltaTable(path).version()
    if counted != distinct or counted not in {expected(version) for version in range(before, after + 1)}:
        wrong.append(["duckdb", before, after, counted, distinct])
    if last:
        break
print(json.dumps({"looks": looks, "wrong": wrong, "version": after, "rows": counted, "compactions": compactions}))
