//! `forebay browse`: what a server has, as a point list.

use edge_agent::drivers::{DriverError, ethernet_ip, opcua};

use crate::arguments::browse::{Browse, BrowseEthernetIp, BrowseOpcua, BrowseServer};
use crate::output::{DONE, FAILED, USAGE};
use crate::process::runtime;
use crate::{complain, say};

/// Exit 0 with the list on standard output; 2 where a person must change something.
#[must_use]
pub fn run(options: &Browse) -> u8 {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(problem) => {
            complain!("{problem}");
            return FAILED;
        }
    };
    let (server, found) = match &options.server {
        BrowseServer::Opcua(options) => {
            (&options.url, runtime.block_on(opcua::browse::browse(&opcua_options(options))))
        }
        BrowseServer::EthernetIp(options) => {
            (&options.address, runtime.block_on(ethernet_ip::browse::browse(&ethernet_ip_options(options))))
        }
    };
    match found {
        Ok(list) => {
            say!("{}", list.trim_end());
            DONE
        }
        Err(error) => {
            complain!("{server}: {error}");
            match error {
                DriverError::Config(_) | DriverError::Denied(_) => USAGE,
                _ => FAILED,
            }
        }
    }
}

fn opcua_options(options: &BrowseOpcua) -> opcua::browse::BrowseOptions {
    opcua::browse::BrowseOptions {
        url: options.url.clone(),
        from: options.from.clone(),
        security: options.security.clone(),
        user: options.user.clone().zip(options.password_file.clone()),
        pki: options.pki.clone(),
        timeout: options.timeout,
    }
}

fn ethernet_ip_options(options: &BrowseEthernetIp) -> ethernet_ip::browse::BrowseOptions {
    ethernet_ip::browse::BrowseOptions {
        address: options.address.clone(),
        route: options.route.clone(),
        from: options.from.clone(),
        timeout: options.timeout,
    }
}
