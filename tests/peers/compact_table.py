"""Compacts a Delta table, writes a checkpoint and cleans up its log, as an administrator would with deltalake.

usage: compact_table.py PATH
"""

import json
import sys

from deltalake import DeltaTable

table = DeltaTable(sys.argv[1])
metrics = table.optimize.compact()
table.create_checkpoint()
removed = table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
table.cleanup_metadata()
print(json.dumps({"version": table.version(), "removed": len(removed), "files": len(table.file_uris()), "metrics": str(metrics)}))
