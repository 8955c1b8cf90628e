"""Readers that are not ours open a table with no option and agree on what is in it.

Usage: read_lake.py delta|parquet FOLDER ROWS
"""

import sys

import duckdb
import pyarrow.dataset
from deltalake import DeltaTable

kind, folder, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])

if kind == "delta":
    table = DeltaTable(folder)
    assert table.metadata().partition_columns == ["day"], table.metadata()
    arrow = table.to_pyarrow_dataset().to_table()
    frame = table.to_pandas()
    assert len(frame) == rows, (len(frame), rows)
else:
    arrow = pyarrow.dataset.dataset(folder, exclude_invalid_files=False).to_table()

assert arrow.num_rows == rows, (arrow.num_rows, rows)
expected = {
    "path", "site", "agent", "device", "ts", "arrival_ts", "value_type", "value_double", "value_long", "value_bool",
    "value_string", "quality", "is_historical", "log_epoch", "log_offset", "batch_index", "day",
}
assert set(arrow.column_names) == expected, set(arrow.column_names) ^ expected
assert str(arrow.schema.field("ts").type) == "timestamp[us, tz=UTC]", arrow.schema

db = duckdb.connect()
db.execute("set timezone = 'UTC'")
db.register("t", arrow)
identities = db.sql("select count(*) from (select distinct agent, log_epoch, log_offset, batch_index from t)").fetchone()[0]
assert identities == rows, (identities, rows)
per_path = dict(db.sql("select path, count(distinct ts) from t group by path").fetchall())
assert set(per_path) == {"hall/lab/Öldruck", "hall/lab/count", "hall/lab/note"}, per_path
assert all(count == rows // 3 for count in per_path.values()), per_path
row = db.sql(
    "select value_type, value_long, quality, agent, site from t where path = 'hall/lab/count' and ts = '2026-01-01 00:00:07+00'"
).fetchall()
assert row == [("uint32", 7, "good", "plant/a", "works")], row
row = db.sql("select value_string from t where path = 'hall/lab/note' and ts = '2026-01-01 00:00:07+00'").fetchall()
assert row == [("note 7",)], row
row = db.sql("select value_double from t where path = 'hall/lab/Öldruck' and ts = '2026-01-01 00:00:07+00'").fetchall()
assert row == [(7.5,)], row
# Whoever has no Delta reader at all reads the files of the newest snapshot.
files = DeltaTable(folder).file_uris() if kind == "delta" else [folder + "/**/*.parquet"]
count = duckdb.sql(f"select count(*) from read_parquet({files!r})").fetchone()[0]
assert count == rows, (count, rows)
print("good:", rows)
