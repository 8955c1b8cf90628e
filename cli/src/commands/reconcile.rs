//! `forebay reconcile`: gathers, compares, prints.

use crate::arguments::Reconcile;
use crate::hub_client::HubClient;
use crate::output::{DONE, FAILED};
use crate::reconcile::{Findings, balance, cold, live, report};
use crate::{complain, say};

/// Exit 0 if nothing is missing, double or different, else 1, also if it cannot be found out.
#[must_use]
pub fn run(options: &Reconcile) -> u8 {
    match gather(options) {
        Ok(found) => {
            let balance = balance(&found);
            if options.json {
                say!("{}", report::to_json(&balance));
            } else {
                say!("{}", report::text(&balance));
            }
            if balance.balances() { DONE } else { FAILED }
        }
        Err(message) => {
            complain!("{message}");
            FAILED
        }
    }
}

fn gather(options: &Reconcile) -> Result<Findings, String> {
    if let Some(dir) = &options.dir {
        return cold::gather(dir);
    }
    let (Some(hub), Some(table)) = (&options.hub, &options.table) else {
        return Err("give --dir DIR, or --hub URL and --table FOLDER".into());
    };
    let client = HubClient::new(hub, options.token_file.as_deref())?;
    live::gather(&client, &table.strip_prefix("file://").unwrap_or(table).parse()?, &options.sink)
}
