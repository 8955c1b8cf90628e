//! The checks can fail: a table in which one row is gone, double or different is found out, by both of them.

use std::process::Command;
use std::time::Duration;

use forebay_tests::campaign::{Campaign, Load, Role};
use forebay_tests::peers::{python, run, script};

/// Changes the newest file of the table with a writer that is not ours.
const CHANGE: &str = "
import sys, pyarrow as pa, pyarrow.compute as pc, pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake
folder, how = sys.argv[1:]
rows = DeltaTable(folder).to_pyarrow_table()
place = rows.num_rows // 2
if how == 'double':
    rows = pa.concat_tables([rows, rows.slice(place, 1)])
elif how == 'missing':
    rows = pa.concat_tables([rows.slice(0, place), rows.slice(place + 1)])
elif how == 'different':
    values = rows['value_long'].to_pylist()
    values[place] += 1
    at = rows.column_names.index('value_long')
    rows = rows.set_column(at, 'value_long', pa.array(values, pa.int64()))
write_deltalake(folder, rows, mode='overwrite')
";

#[test]
fn a_row_that_is_missing_double_or_different_is_found() {
    let mut campaign = Campaign::new(Load { agents: 1, points: 4, poll: Duration::from_millis(50) });
    campaign.start_all();
    campaign.plant.settle_some(200);
    campaign.quiet();
    let report = campaign.settle(Duration::from_secs(60));
    assert!(campaign.check(&report) > 200);
    [Role::Bridge, Role::Hub, Role::Agent(0)].into_iter().for_each(|role| campaign.kill(role));
    let (lake, whole) = (campaign.plant.dir().join("lake"), campaign.plant.dir().join("whole"));
    run(Command::new("cp").arg("-r").arg(&lake).arg(&whole));
    for how in ["missing", "double", "different"] {
        run(Command::new(python()).args(["-c", CHANGE]).arg(&lake).arg(how));
        let (code, report) = campaign.plant.reconcile();
        assert_eq!((code, report["balances"].as_bool()), (1, Some(false)), "{how}: {report:#}");
        let output = run(Command::new(python()).arg(script("check_rows.py")).arg(&lake).arg("--counters"));
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_ne!(found["problems"], serde_json::json!([]), "{how}");
        std::fs::remove_dir_all(&lake).unwrap();
        run(Command::new("cp").arg("-r").arg(&whole).arg(&lake));
    }
}
