//! `forebay demo`: a whole plant in one process, over real sockets and files.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use ::runtime::clock::Clock;
use ::runtime::tasks::{CancellationToken, Tasks};

use crate::arguments::Demo;
use crate::demo::site::{Addresses, Site};
use crate::demo::{csv_writer, plc, site};
use crate::output::{DONE, FAILED, USAGE};
use crate::process::{End, Process, runtime};
use crate::reconcile::{self, report};
use crate::{complain, plant, say};

/// Time between two rows of the reactor's recording.
const REACTOR_ROW: Duration = Duration::from_secs(3 * 60);
/// Time between two rows of the machine's recording.
const MACHINE_ROW: Duration = Duration::from_secs(5 * 60);
/// A point that the greeting proposes to write.
const SET_POINT: &str = "tennessee-eastman/reactor/vessel/level-set-point";
/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);

/// Exit 0 after a graceful end; with `--for` only if the balance is right.
#[must_use]
pub fn run(options: &Demo) -> u8 {
    ::runtime::telemetry::start_log_lines("warn");
    let ended = runtime().and_then(|runtime| {
        let ended = runtime.block_on(whole_plant(options));
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended
    });
    match ended {
        Err(error) => {
            complain!("{error}");
            FAILED
        }
        Ok(None) => USAGE,
        Ok(Some(complaints)) => {
            complaints.iter().for_each(|complaint| complain!("not graceful: {complaint}"));
            if options.run_for.is_none() && complaints.is_empty() {
                say!("stopped; the same command goes on from here");
            }
            let balanced = options.run_for.is_none() || reconciled(&options.dir);
            if complaints.is_empty() && balanced { DONE } else { FAILED }
        }
    }
}

/// Starts everything, waits, drains; `None` if the demo's own configuration was refused.
async fn whole_plant(options: &Demo) -> Result<Option<Vec<String>>, String> {
    let sources = Tasks::new(CancellationToken::new());
    let spacing = |row: Duration| row.div_f64(options.speed);
    let anywhere = ([127, 0, 0, 1], 0).into();
    let plc =
        plc::start(anywhere, spacing(REACTOR_ROW), &sources).await.map_err(|error| error.to_string())?;
    let (mqtt, http) = (chosen(options.mqtt)?, chosen(options.http)?);
    let addresses = Addresses { mqtt, http, plc: plc.address };
    let site = site::write(&options.dir, addresses)?;
    let Some(plants) = plant::load_all(&site.configs) else { return Ok(None) };
    let process = match Process::start(plants).await {
        Ok(process) => process,
        Err(error) => {
            sources.drain().await;
            return Err(hint(error));
        }
    };
    // Only now: until its logs are locked, the folder may be another demo's.
    let writer = csv_writer::start(&site.machine_files, spacing(MACHINE_ROW), Clock::machine(), &sources);
    if let Err(error) = writer.await {
        process.drain().await;
        sources.drain().await;
        return Err(error.to_string());
    }
    greet(options, addresses, &site);
    let end = tokio::select! {
        end = process.wait(options.run_for) => end,
        () = progress(&process) => End::Failure,
    };
    say!("ending: reading stops, then everything that was accepted is delivered");
    let mut complaints = process.drain().await;
    complaints.extend(sources.drain().await.failed);
    if end == End::Failure && complaints.is_empty() {
        complaints.push("a task failed; see the lines above".into());
    }
    Ok(Some(complaints))
}

/// Port 0 stands for any free one; agents and bridge have to know it before the hub listens.
fn chosen(address: SocketAddr) -> Result<SocketAddr, String> {
    if address.port() != 0 {
        return Ok(address);
    }
    let listener = TcpListener::bind(address).and_then(|listener| listener.local_addr());
    listener.map_err(|error| format!("no free port on {}: {error}", address.ip()))
}

fn hint(error: String) -> String {
    if error.contains("Address already in use") {
        return format!(
            "{error}\nAnother program listens there (another demo?). Choose others with --mqtt and --http."
        );
    }
    if error.contains("in use by another process") {
        return format!("{error}\nA demo runs in this folder already. Choose another with --dir.");
    }
    error
}

/// Where to find what listens on `listen`: an address that means all of them is no place to go to.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn greet(options: &Demo, addresses: Addresses, site: &Site) {
    let token = std::fs::read_to_string(&site.token_file).unwrap_or_default();
    let http = reachable(addresses.http);
    say!("A chemical plant and a machine are running in {}", options.dir.display());
    say!("");
    say!("  page      http://{http}/?token={}", token.trim());
    say!(
        "  MQTT      mosquitto_sub -h {} -p {} -t 'forebay/demo/#' -v",
        addresses.mqtt.ip(),
        addresses.mqtt.port()
    );
    say!("  table     {}  (Delta; DuckDB, pandas, Spark read it)", site.lake.display());
    say!(
        "  command   forebay command write {SET_POINT} 71 --reason \"trying it out\" \\\n\
         {:12}--hub http://{http} --token-file {}",
        "",
        site.token_file.display()
    );
    say!("  proof     forebay reconcile --dir {}", options.dir.display());
    say!("");
    match options.run_for {
        Some(time) => say!("Ends by itself after {time:?}."),
        None => say!(
            "Stop it with Ctrl-C. Kill it with kill -9 and start it again, if you like: nothing is lost."
        ),
    }
}

/// A line every few seconds: what has come how far.
async fn progress(process: &Process) {
    loop {
        tokio::time::sleep(PROGRESS).await;
        say!("{}", process.progress());
    }
}

/// The balance of the folder, printed; a difference is looked at again for as long as things may still be on the way.
fn reconciled(dir: &Path) -> bool {
    match reconcile::cold::gather(dir).map(|found| reconcile::balance(&found)) {
        Ok(balance) => {
            say!("{}", report::text(&balance));
            balance.balances() && balance.is_settled() && !balance.lines.is_empty()
        }
        Err(error) => {
            complain!("{error}");
            false
        }
    }
}
