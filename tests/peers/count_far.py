"""Counts rows and distinct identities of a Delta table in an object store with deltalake, and with DuckDB over deltalake's list
of files where its storage can be read over HTTP.

usage: count_far.py URL STORAGE_OPTIONS_JSON
"""

import glob
import importlib.util
import json
import os
import sys

from deltalake import DeltaTable


def extension(name):
    for folder in importlib.util.find_spec("duckdb_ext").submodule_search_locations:
        for file in glob.glob(os.path.join(folder, "extensions", "*", "*", f"{name}.duckdb_extension")):
            return file
    raise SystemExit(f"duckdb-ext-{name} is not installed; see tests/peers/requirements.txt")


options = json.loads(sys.argv[2])
table = DeltaTable(sys.argv[1], storage_options=options)
rows = table.to_pyarrow_table(columns=["agent", "log_epoch", "log_offset", "batch_index"])
identities = rows.group_by(["agent", "log_epoch", "log_offset", "batch_index"]).aggregate([]).num_rows
seen = {"deltalake": [rows.num_rows, identities], "version": table.version()}

if "AWS_ENDPOINT_URL" in options:
    import duckdb

    connection = duckdb.connect()
    for name in ["httpfs", "delta"]:
        connection.execute(f"LOAD '{extension(name)}'")
    endpoint = options["AWS_ENDPOINT_URL"].removeprefix("http://")
    connection.execute(
        f"CREATE SECRET (TYPE s3, KEY_ID 'test', SECRET 'test', REGION 'us-east-1', ENDPOINT '{endpoint}', "
        "URL_STYLE 'path', USE_SSL false)"
    )
    seen["duckdb"] = connection.sql(
        "SELECT count(*), count(DISTINCT (agent, log_epoch, log_offset, batch_index)) FROM delta_scan($url)",
        params={"url": sys.argv[1]},
    ).fetchone()
print(json.dumps(seen))
