//! An agent alone, without a hub, on an OPC UA server under load: what it accepted, what it cost.
//!
//! ```sh
//! python tests/peers/opcua_server.py '{"items": 10000}'      # prints its port; then, on its stdin:
//! cargo run -p edge-agent --example opcua_load -- PORT 10000 30
//! {"do": "load", "rounds": 20, "ms": 1000}
//! ```

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use runtime::clock::Clock;
use runtime::config_file::{ConfigFile, PlantNames, Problems};
use runtime::tasks::{CancellationToken, Tasks};
use runtime::telemetry::Metrics;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    runtime::telemetry::start_log_lines("warn,opcua_client=off,opcua_core=off");
    let arguments: Vec<u64> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let [port, items, seconds] = arguments[..] else { return Err("arguments: PORT ITEMS SECONDS".into()) };
    let dir = std::env::temp_dir().join(format!("forebay-opcua-load-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let mut list = String::from("name,address,type\n");
    for nth in 0..items {
        writeln!(list, "item-{nth},ns=2;s=Item.{nth},int32")?;
    }
    std::fs::write(dir.join("points.csv"), list)?;
    let text = format!(
        "[edge]\ngroup = \"load\"\nnode = \"n\"\ndata_dir = \"{0}/data\"\nhub = \"mqtt://127.0.0.1:9\"\n\
         [[edge.devices]]\nname = \"d\"\ndriver = \"opcua\"\nurl = \"opc.tcp://127.0.0.1:{port}/press\"\n\
         security = \"none\"\ntimeout = \"10s\"\nstale_after = \"30s\"\npoints = \"{0}/points.csv\"\n",
        dir.display()
    );
    let file = ConfigFile::from_text(&dir.join("edge.toml"), text);
    let mut problems = Problems::default();
    let mut root = file.parse(&mut problems);
    let names = PlantNames { enterprise: "acme".into(), site: "load".into() };
    let section = root.section("edge", &mut problems).ok_or("no section")?;
    let config = edge_agent::config::validate(section, &names, &mut problems);
    let config = config.ok_or_else(|| format!("{:?}", problems.list))?;
    let (metrics, tasks) = (Metrics::default(), Tasks::new(CancellationToken::new()));
    let agent = edge_agent::start(config, Clock::machine(), metrics.clone(), tasks.clone()).await?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let mut report = format!("{:?}\n", agent.status().devices);
    for line in
        metrics.render().lines().filter(|line| line.starts_with("forebay_edge_") && !line.ends_with(" 0"))
    {
        writeln!(report, "{line}")?;
    }
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let ticks: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let cpu = [11, 12].iter().filter_map(|nth| ticks.get(*nth)?.parse::<f64>().ok()).sum::<f64>() / 100.0;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let memory = status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
    writeln!(report, "cpu {cpu:.1} s in {seconds} s; {}", memory.collect::<Vec<_>>().join("; "))?;
    std::fs::write("/dev/stdout", report)?;
    tasks.drain().await;
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
