//! `forebay browse`: what a server has, as a point list.

use edge_agent::drivers::DriverError;
use edge_agent::drivers::opcua::browse::{BrowseOptions, browse};

use crate::arguments::browse::{Browse, BrowseOpcua, BrowseServer};
use crate::output::{DONE, FAILED, USAGE};
use crate::process::runtime;
use crate::{complain, say};

/// Exit 0 with the list on standard output; 2 where a person must change something.
#[must_use]
pub fn run(options: &Browse) -> u8 {
    let BrowseServer::Opcua(options) = &options.server;
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(problem) => {
            complain!("{problem}");
            return FAILED;
        }
    };
    match runtime.block_on(browse(&options_of(options))) {
        Ok(list) => {
            say!("{}", list.trim_end());
            DONE
        }
        Err(error) => {
            complain!("{}: {error}", options.url);
            match error {
                DriverError::Config(_) | DriverError::Denied(_) => USAGE,
                _ => FAILED,
            }
        }
    }
}

fn options_of(options: &BrowseOpcua) -> BrowseOptions {
    BrowseOptions {
        url: options.url.clone(),
        from: options.from.clone(),
        security: options.security.clone(),
        user: options.user.clone().zip(options.password_file.clone()),
        pki: options.pki.clone(),
        timeout: options.timeout,
    }
}
