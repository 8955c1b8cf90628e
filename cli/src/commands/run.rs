//! `forebay run`: the roles that configuration files name, until a signal.

use crate::arguments::Run;
use crate::output::{DONE, FAILED, USAGE};
use crate::process::{End, Process, runtime};
use crate::{complain, plant, say};

/// Exit 0 after a graceful end, 1 after a failure or an end that was not, 2 for a configuration that cannot work.
#[must_use]
pub fn run(options: &Run) -> u8 {
    let Some(plants) = plant::load_all(&options.files) else { return USAGE };
    ::runtime::telemetry::start_log_lines(
        "info,delta_kernel=warn,delta_kernel_default_engine=warn,opcua_client=off,opcua_core=off,opcua_crypto=off",
    );
    let started = runtime().and_then(|runtime| runtime.block_on(until_signal(plants)));
    match started {
        Ok(complaints) if complaints.is_empty() => DONE,
        Ok(complaints) => {
            complaints.iter().for_each(|complaint| complain!("{complaint}"));
            FAILED
        }
        Err(error) => {
            complain!("{error}");
            FAILED
        }
    }
}

async fn until_signal(plants: Vec<plant::Plant>) -> Result<Vec<String>, String> {
    let process = Process::start(plants).await?;
    for (hub, _) in &process.hubs {
        tell_token(hub);
    }
    tracing::info!("running; stop with Ctrl-C or SIGTERM");
    let end = process.wait(None).await;
    tracing::info!(?end, "draining");
    let mut complaints = process.drain().await;
    if end == End::Failure && complaints.is_empty() {
        complaints.push("a task failed; see the log lines above".into());
    }
    tracing::info!(graceful = complaints.is_empty(), "ended");
    Ok(complaints)
}

/// The page's password, once: at the first start, to the person who started it.
fn tell_token(hub: &hub::Handle) {
    tracing::info!(page = %format!("http://{}/", hub.http), password = %hub.token.path().display(), "hub");
    if hub.token.is_new() {
        say!("The hub's password (user admin, also the API's token), told this once: {}", hub.token.text());
        say!("It is kept in {}", hub.token.path().display());
    }
}
