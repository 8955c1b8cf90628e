//! `forebay agent`: who may come in from other machines, on the hub's machine.

use std::path::Path;

use hub::broker::access_file::{self, Change, EditError, Listed};
use hub::config::{BrokerConfig, EmbeddedBroker};
use hub::enrol::{IssuedFolder, IssuedTo, Join, Joins, tls_dir};
use model::{NodeId, Timestamp};
use runtime::clock::Clock;
use runtime::enrolment::EnrolUrl;
use runtime::pki::{Authority, Certificate, check_common_name, read_certificates};
use serde_json::json;

use super::cert::{days_text, host_name, hub_config};
use crate::arguments::certificates::{Agent, AgentAction};
use crate::output::{DONE, FAILED};
use crate::{complain, say};

/// The role of agents in the access file.
const ROLE: &str = "agent";

/// Exit 0 if done as asked.
#[must_use]
pub fn run(options: &Agent) -> u8 {
    let done = match &options.action {
        AgentAction::Add { name, node, config, host, valid } => {
            Hub::load(config).and_then(|hub| hub.add(name, node.as_ref(), host.as_deref(), *valid))
        }
        AgentAction::List { config, json } => Hub::load(config).and_then(|hub| hub.list(*json)),
        AgentAction::Revoke { name, disable, config } => {
            Hub::load(config).and_then(|hub| hub.revoke(name, *disable))
        }
    };
    match done {
        Ok(()) => DONE,
        Err(error) => {
            complain!("{error}");
            FAILED
        }
    }
}

/// The hub whose files are changed. It may run meanwhile.
struct Hub {
    site: String,
    broker: EmbeddedBroker,
    tls: std::path::PathBuf,
    now: Timestamp,
}

impl Hub {
    fn load(config: &Path) -> Result<Hub, String> {
        let hub = hub_config(config)?;
        let BrokerConfig::Embedded(broker) = hub.broker else {
            return Err(
                "this hub uses a broker that is not its own ([hub.broker] url): that one lets agents in"
                    .into(),
            );
        };
        Ok(Hub { site: hub.site, broker, tls: tls_dir(&hub.data_dir), now: Clock::machine().now() })
    }

    fn add(
        &self,
        name: &str,
        node: Option<&NodeId>,
        host: Option<&str>,
        valid: std::time::Duration,
    ) -> Result<(), String> {
        check_common_name(name)?;
        let listen = self.broker.enrol.ok_or(
            "enrolment is off: write [hub.enrol] listen = \"0.0.0.0:8884\" in the hub's file and start it again",
        )?;
        Authority::load(&self.tls.join("ca.crt"), &self.tls.join("ca.key"))
            .map_err(|error| format!("{error}\n`forebay cert init` makes the plant's CA"))?;
        let (ca, shown) = self.shown()?;
        let host = match host {
            Some(host) => host.to_owned(),
            None => reachable(&shown),
        };
        let url: EnrolUrl = format!("https://{}:{}", bracketed(&host), listen.port())
            .parse()
            .map_err(|rule| format!("{host} cannot be in the join line: it {rule}"))?;
        let identity = self.put(name, node)?;
        let made = Joins::below(&self.tls).make(name, self.now, valid).map_err(|error| error.to_string())?;
        let node = identity.map(|node| format!(", Sparkplug node {node}")).unwrap_or_default();
        let minutes = made.expires.micros_since(self.now) / 60_000_000;
        say!("{name} may come in{node}. On its machine, once, within {minutes} minutes:\n");
        say!("forebay join {url} --token {} --ca {}", made.token, ca.fingerprint);
        if !shown.server_names().contains(&host) {
            complain!(
                "\nthe hub's certificate is not for {host} but for {}; add it: forebay cert renew-hub --name {host}",
                shown.server_names().join(", ")
            );
        }
        Ok(())
    }

    /// The CA by which agents know the hub, and the hub's own certificate.
    fn shown(&self) -> Result<(Certificate, Certificate), String> {
        let file = &self.broker.tls.cert_file;
        let chain = read_certificates(file).map_err(|error| error.to_string())?;
        let ca = chain.iter().skip(1).rfind(|certificate| certificate.is_ca);
        let ca = ca.ok_or_else(|| {
            format!(
                "{}: holds no CA certificate, by which agents could know the hub; append the certificates up to the CA",
                file.display()
            )
        })?;
        let hub = chain.first().ok_or_else(|| format!("{}: is empty", file.display()))?;
        Ok((ca.clone(), hub.clone()))
    }

    /// Makes the identity, or allows the present one to come in by certificate. Returns its node.
    fn put(&self, name: &str, node: Option<&NodeId>) -> Result<Option<NodeId>, String> {
        let by_default = NodeId::new(&self.site, name);
        access_file::edit(&self.broker.access_file, |edit| {
            let present = edit.find(name);
            let mut change = Change { certificate: Some(true), node: node.cloned(), ..Change::default() };
            match &present {
                None => {
                    change.roles = Some(vec![ROLE.to_owned()]);
                    if node.is_none() {
                        let made = by_default.map_err(|error| {
                            EditError::Refused(format!(
                                "{name} is no Sparkplug node ({error}): give --node GROUP/NODE"
                            ))
                        })?;
                        change.node = Some(made);
                    }
                }
                Some(present) if present.disabled => change.disabled = Some(false),
                Some(_) => {}
            }
            edit.put(name, &change)?;
            Ok(change.node.or(present.and_then(|present| present.node)))
        })
        .map_err(|error| error.to_string())
    }

    fn list(&self, as_json: bool) -> Result<(), String> {
        let identities = access_file::list(&self.broker.access_file).map_err(|error| error.to_string())?;
        let issued = IssuedFolder::below(&self.tls);
        let open = Joins::below(&self.tls).open(self.now).map_err(|error| error.to_string())?;
        let mut count = 0;
        for identity in identities.iter().filter(|identity| identity.certificate) {
            let certificate = issued.of(&identity.name);
            let join = open.iter().find(|join| join.name == identity.name);
            if as_json {
                say!("{}", self.described(identity, certificate.as_ref(), join));
            } else {
                self.print(identity, certificate.as_ref(), join);
            }
            count += 1;
        }
        if count == 0 && !as_json {
            say!("no agent comes in by certificate yet: forebay agent add NAME");
        }
        Ok(())
    }

    fn state(&self, identity: &Listed, certificate: Option<&IssuedTo>, join: Option<&Join>) -> &'static str {
        let is_revoked = |certificate: &IssuedTo| {
            identity.certificates_from.is_some_and(|from| certificate.not_before < from.micros())
        };
        match (certificate, join) {
            _ if identity.disabled => "disabled",
            (Some(certificate), None) if is_revoked(certificate) => "revoked",
            (Some(certificate), None) if certificate.not_after < self.now.micros() => "ended",
            (Some(certificate), _)
                if !is_revoked(certificate) && certificate.not_after >= self.now.micros() =>
            {
                "good"
            }
            (_, Some(_)) => "to join",
            _ => "not joined",
        }
    }

    fn print(&self, identity: &Listed, certificate: Option<&IssuedTo>, join: Option<&Join>) {
        let node = identity.node.as_ref().map(ToString::to_string).unwrap_or_default();
        let mut parts = vec![format!(
            "{:<20} {:<24} {:<10}",
            identity.name,
            node,
            self.state(identity, certificate, join)
        )];
        if let Some(certificate) = certificate {
            let end = Timestamp(certificate.not_after);
            parts.push(days_text(end.micros_since(self.now) / 1_000_000));
            if let Some(joined) = certificate.joined {
                parts.push(format!("joined {} from {}", minute(Timestamp(joined)), certificate.peer));
            }
            if let Some(renewed) = certificate.renewed {
                parts.push(format!("renewed {}", minute(Timestamp(renewed))));
            }
        }
        if let Some(join) = join {
            parts.push(format!("join line works until {}", minute(join.expires)));
        }
        say!("{}", parts.join("  "));
    }

    fn described(
        &self,
        identity: &Listed,
        certificate: Option<&IssuedTo>,
        join: Option<&Join>,
    ) -> serde_json::Value {
        let time = |micros: i64| Timestamp(micros).to_string();
        json!({
            "name": identity.name,
            "node": identity.node.as_ref().map(ToString::to_string),
            "state": self.state(identity, certificate, join),
            "certificates_from": identity.certificates_from.map(|from| from.to_string()),
            "not_before": certificate.map(|found| time(found.not_before)),
            "not_after": certificate.map(|found| time(found.not_after)),
            "fingerprint": certificate.map(|found| found.fingerprint.clone()),
            "joined": certificate.and_then(|found| found.joined).map(time),
            "renewed": certificate.and_then(|found| found.renewed).map(time),
            "join_until": join.map(|join| join.expires.to_string()),
        })
    }

    fn revoke(&self, name: &str, disable: bool) -> Result<(), String> {
        let change = Change {
            certificates_from: Some(self.now),
            disabled: disable.then_some(true),
            ..Change::default()
        };
        let present = access_file::edit(&self.broker.access_file, |edit| {
            edit.update(name, &change)?;
            Ok(edit.find(name))
        });
        let present = present.map_err(|error| error.to_string())?;
        Joins::below(&self.tls).end(name).map_err(|error| error.to_string())?;
        say!("certificates of {name} from before now are refused, on live sessions within a second");
        if let Some(present) = present
            && !disable
            && (present.password || present.token)
        {
            complain!(
                "{name} has a password or token as well, which still works: add --disable to refuse everything"
            );
        }
        Ok(())
    }
}

/// A name under which other machines may find the hub.
fn reachable(hub: &Certificate) -> String {
    let is_local = |name: &String| {
        name == "localhost" || name.starts_with("127.") || name == "::1" || name.contains('*')
    };
    let found = hub.server_names().into_iter().find(|name| !is_local(name));
    found.or_else(host_name).unwrap_or_else(|| "localhost".to_owned())
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// `2026-11-25T10:00Z`
fn minute(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(..16).map_or(text.clone(), |minute| format!("{minute}Z"))
}
