"""What others do with a table's rows: DuckDB reads one point of it, pyarrow and DuckDB write the same rows to Parquet.

usage: bench_table.py TABLE POINT

Bytes read are those that the kernel counts for this process (rchar of /proc/self/io).
"""

import glob
import importlib.util
import json
import os
import sys
import tempfile
import time

import duckdb
import pyarrow.parquet as parquet
from deltalake import DeltaTable

table, point = sys.argv[1:]


def read_so_far():
    with open("/proc/self/io") as counters:
        return int(next(line for line in counters if line.startswith("rchar")).split()[1])


def extension(name):
    for folder in importlib.util.find_spec("duckdb_ext").submodule_search_locations:
        for file in glob.glob(os.path.join(folder, "extensions", "*", "*", f"{name}.duckdb_extension")):
            return file
    raise SystemExit(f"duckdb-ext-{name} is not installed; see tests/peers/requirements.txt")


def reads(question):
    db = duckdb.connect()
    db.execute(f"LOAD '{extension('delta')}'")
    db.execute("SET threads = 2")
    db.execute("SET enable_progress_bar = false")
    before = read_so_far()
    answer = db.execute(question).fetchone()
    return (read_so_far() - before) / 1e6, answer


day = "2026-11-22"
point_mb, (rows, _) = reads(f"SELECT count(*), avg(value_double) FROM delta_scan('{table}') WHERE day = '{day}' AND path = '{point}'")
full_mb, _ = reads(f"SELECT count(*), avg(value_double) FROM delta_scan('{table}') WHERE value_double + batch_index > -1e9")
delta = DeltaTable(table)
file_mb = sum(os.path.getsize(os.path.join(table, path)) for path in delta.get_add_actions(flatten=True).column("path").to_pylist()) / 1e6
everything = delta.to_pyarrow_table().combine_chunks()
seen = {"point_read_mb": point_mb, "full_read_mb": full_mb, "file_mb": file_mb, "point_rows": rows}
with tempfile.TemporaryDirectory(dir=os.path.dirname(table)) as folder:
    target = os.path.join(folder, "peer.parquet")

    def measured(name, write):
        started = time.monotonic()
        write()
        with open(target, "rb+") as file:
            os.fsync(file.fileno())
        seen[f"{name}_rows_per_s"] = everything.num_rows / (time.monotonic() - started)
        seen[f"{name}_bytes_per_row"] = os.path.getsize(target) / everything.num_rows
        os.remove(target)

    measured("pyarrow", lambda: parquet.write_table(everything, target, compression="zstd"))
    db = duckdb.connect()
    db.execute("SET threads = 2")
    db.execute("SET enable_progress_bar = false")
    db.register("everything", everything)
    measured("duckdb", lambda: db.execute(f"COPY everything TO '{target}' (FORMAT parquet, COMPRESSION zstd)"))
print(json.dumps(seen))
