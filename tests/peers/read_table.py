"""Opens a table with the readers people use, with no option, and prints what each of them sees as JSON.

usage: read_table.py delta|parquet PATH

For every reader: rows, columns with their types, and a few answers computed by that reader alone.
"""

import json
import sys

kind, path = sys.argv[1], sys.argv[2]

QUESTIONS = {
    "rows": "select count(*) from t",
    "identities": "select count(*) from (select distinct agent, log_epoch, log_offset, batch_index from t)",
    "paths": "select count(distinct path) from t",
    "days": "select count(distinct day) from t",
    "sum_double": "select sum(value_double) from t where isfinite(value_double)",
    "sum_long": "select coalesce(sum(cast(value_long as hugeint)), 0)::varchar from t",
    "true": "select count(*) from t where value_bool",
    "strings": "select coalesce(sum(length(value_string)), 0)::bigint from t",
    "good": "select count(*) from t where quality = 'good'",
    "historical": "select count(*) from t where is_historical",
    "no_device": "select count(*) from t where device is null",
    "first_ts_us": "select min(epoch_us(ts)) from t",
    "last_ts_us": "select max(epoch_us(ts)) from t",
    "indices": "select sum(batch_index)::bigint from t",
}


def ask_duckdb(connection, columns):
    answers = {name: connection.execute(sql).fetchone()[0] for name, sql in QUESTIONS.items()}
    return {"columns": columns, "answers": answers}


def types_of(schema):
    return {field.name: str(field.type) for field in schema}


def through_arrow(table):
    """DuckDB over an Arrow table that another reader made."""
    import duckdb

    connection = duckdb.connect()
    connection.register("t", table)
    return ask_duckdb(connection, types_of(table.schema))


def pandas_view(frame):
    finite = frame["value_double"][frame["value_double"].abs() != float("inf")]
    return {
        "columns": {name: str(dtype) for name, dtype in frame.dtypes.items()},
        "answers": {
            "rows": len(frame),
            "paths": int(frame["path"].nunique()),
            "sum_double": float(finite.sum()),
            "good": int((frame["quality"] == "good").sum()),
            "indices": int(frame["batch_index"].sum()),
        },
    }


def load_delta(connection):
    """Loads the Delta extension as the package index has it; DuckDB's own download needs its web site."""
    import glob
    import importlib.util
    import os

    for folder in importlib.util.find_spec("duckdb_ext").submodule_search_locations:
        for extension in glob.glob(os.path.join(folder, "extensions", "*", "*", "delta.duckdb_extension")):
            connection.execute(f"load '{extension}'")
            return
    raise SystemExit("duckdb-ext-delta is not installed; see tests/peers/requirements.txt")


def duckdb_view(relation):
    import duckdb

    connection = duckdb.connect()
    load_delta(connection)
    connection.execute(f"create view t as select * from {relation}")
    columns = {row[0]: row[1] for row in connection.execute("describe t").fetchall()}
    return ask_duckdb(connection, columns)


def delta():
    from deltalake import DeltaTable
    import pyarrow
    import pyarrow.compute

    table = DeltaTable(path)
    arrow = pyarrow.table(table.to_pyarrow_table())
    result = {
        "deltalake": through_arrow(arrow) | {"version": table.version(), "partitions": table.metadata().partition_columns},
        "deltalake_pandas": pandas_view(table.to_pandas()),
        "pyarrow_dataset": through_arrow(table.to_pyarrow_dataset().to_table()),
    }
    # Statistics are used here: files without such rows must not be needed, rows must not be lost.
    low, high = (pyarrow.compute.min(arrow["ts"]), pyarrow.compute.max(arrow["ts"]))
    within = table.to_pyarrow_table(filters=[("ts", ">=", low), ("ts", "<=", high)])
    result["deltalake_filtered"] = {"rows": within.num_rows}
    result["duckdb_delta"] = duckdb_view(f"delta_scan('{path}')")
    print(json.dumps(result))


def parquet():
    import pandas
    import pyarrow.parquet

    arrow = pyarrow.parquet.read_table(path)
    result = {
        "pyarrow": through_arrow(arrow),
        "pandas": pandas_view(pandas.read_parquet(path)),
        "duckdb": duckdb_view(f"'{path}/*.parquet'"),
    }
    print(json.dumps(result))


{"delta": delta, "parquet": parquet}[kind]()
