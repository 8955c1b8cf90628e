"""Checks the rows of a Delta table by their identities and values alone, with readers that are not ours.

usage: check_rows.py FOLDER [--counters]

- (agent, log_epoch, log_offset, batch_index) comes once.
- The offsets of every epoch are 0, 1, 2 ... without a gap, and so are the indices of every record.
- With --counters: every path with good integers is a counter of its source that goes up by one from read to read,
  through all restarts. So its values are 0, 1, 2 ... each once, and later ones have later times. This needs no account
  of ours: a sample that is missing, double or different breaks it.

Prints JSON: rows, what each epoch holds, what each counter counted, and the problems (none: all is well).
"""

import json
import sys

import duckdb
from deltalake import DeltaTable

folder = sys.argv[1]
counters = "--counters" in sys.argv[2:]
files = DeltaTable(folder).file_uris()
db = duckdb.connect()
db.execute("set timezone = 'UTC'")
db.execute("set memory_limit = '2GB'")
db.execute("set threads = 2")
db.execute(f"create view t as select * from read_parquet({files!r}, hive_partitioning = false)")
problems = []


def complain(what, rows):
    if rows:
        problems.append(f"{what}: {len(rows)} or more, first {rows[:3]}")


rows = db.sql("select count(*) from t").fetchone()[0]
# Sums of indices and of their squares, with the bounds: together they leave no room for a double one.
db.execute(
    """create table records as select agent, log_epoch, log_offset, count(*) as n, min(batch_index) as first,
       max(batch_index) as last, sum(batch_index)::hugeint as s1, sum(batch_index::hugeint * batch_index) as s2
       from t group by all"""
)
complain(
    "records whose samples are missing or double",
    db.sql(
        """select agent, log_epoch, log_offset, n, first, last from records where first <> 0 or last <> n - 1
           or s1 * 2 <> n::hugeint * (n - 1) or s2 * 6 <> (n::hugeint - 1) * n * (2 * n - 1) limit 10"""
    ).fetchall(),
)
epochs = db.sql(
    """select agent, log_epoch, count(*), min(log_offset), max(log_offset), sum(n)::bigint from records
       group by all order by agent, log_epoch"""
).fetchall()
complain("epochs with gaps", [e for e in epochs if e[3] != 0 or e[4] + 1 != e[2]])

counted = {}
if counters:
    good = "from t where value_long is not null and quality = 'good' and path not like '%/Forebay/%'"
    per_path = db.sql(
        f"""select path, count(*), min(value_long), max(value_long), count(distinct value_long),
            sum(value_long)::hugeint::varchar {good} group by path order by path"""
    ).fetchall()
    counted = {path: last + 1 for path, _, _, last, _, _ in per_path}
    complain(
        "counters that do not go 0, 1, 2 ...",
        [p for p in per_path if p[2] != 0 or p[3] + 1 != p[1] or p[4] != p[1] or int(p[5]) * 2 != p[1] * (p[1] - 1)],
    )
    complain(
        "counters that run against their time",
        db.sql(
            f"""select path, value_long, epoch_us(ts) from (select path, value_long, ts,
                lag(ts) over (partition by path order by value_long) as before {good}) where ts < before limit 10"""
        ).fetchall(),
    )
    complain(
        "samples that no counter of ours can have said",
        db.sql(
            """select path, agent, value_type, value_long, quality from t where (value_long is null or quality <> 'good')
               and path not like '%/Forebay/%' and quality not like 'stale%' limit 10"""
        ).fetchall(),
    )

print(
    json.dumps(
        {
            "rows": rows,
            "epochs": [
                {"agent": agent, "epoch": f"{epoch & 0xFFFFFFFFFFFFFFFF:016x}", "records": records, "samples": samples}
                for agent, epoch, records, _, _, samples in epochs
            ],
            "counted": counted,
            "problems": problems,
        }
    )
)
