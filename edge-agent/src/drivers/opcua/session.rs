//! From nothing, or from what a lost connection left, to a session with its subscriptions.

use std::time::Duration;

use opcua::types::{EndpointDescription, MessageSecurityMode};
use tokio::time::Instant;

use super::items::{self, Plan};
use super::limits::Limits;
use super::link::{Application, Link, SessionKey};
use super::monitor::Monitor;
use super::pki::{Expiry, Own, Pki};
use super::settings::{Mode, Settings};
use super::{OpcUa, endpoint};
use crate::drivers::DriverError;

/// The first values may take a publishing interval, and this.
const FIRST_VALUES: Duration = Duration::from_secs(1);

/// What belongs to a connection.
pub(super) struct Session {
    pub(super) link: Link,
    pub(super) limits: Limits,
    pub(super) plan: Plan,
    pub(super) monitor: Monitor,
    /// The next item to poll.
    pub(super) next_polled: usize,
    /// First values are waited for until then.
    pub(super) first_until: Option<Instant>,
    pub(super) endpoint: EndpointDescription,
    pub(super) application: Application,
}

pub(super) struct Parked {
    pub(super) key: Option<SessionKey>,
    pub(super) limits: Limits,
    pub(super) plan: Plan,
    pub(super) monitor: Monitor,
    pub(super) endpoint: EndpointDescription,
    pub(super) application: Application,
}

impl OpcUa {
    /// The session of the lost connection on a new one; `None` if the server does not know it any more. What is parked stays
    /// parked while there is no connection.
    pub(super) async fn take_up(&mut self) -> Result<Option<Session>, DriverError> {
        let Some(Parked { key: Some(key), endpoint, application, .. }) = &self.parked else {
            return Ok(None);
        };
        let (key, endpoint, application) = (key.clone(), endpoint.clone(), application.clone());
        let identity = endpoint::identity(&self.settings.login, &endpoint)?;
        let mut link = Link::connect(&application, endpoint.clone(), identity, self.settings.timeout).await?;
        let resumed = link.resume_session(key).await;
        let Some(Parked { limits, mut plan, mut monitor, .. }) = self.parked.take() else { return Ok(None) };
        let resumed = match resumed {
            Ok(()) => monitor.resume(&mut link, &mut self.intake, &mut plan, &self.points).await,
            Err(error) => Err(error),
        };
        if let Err(error) = resumed {
            tracing::info!(device = self.settings.device, %error, "the old session is gone: a new one is made");
            self.parked = Some(Parked { key: None, limits, plan, monitor, endpoint, application });
            link.close().await;
            return Ok(None);
        }
        tracing::info!(device = self.settings.device, "the session goes on on a new connection");
        Ok(Some(Session {
            link,
            limits,
            plan,
            monitor,
            next_polled: 0,
            first_until: None,
            endpoint,
            application,
        }))
    }

    pub(super) async fn connect(&mut self) -> Result<Session, DriverError> {
        let now = self.clock.now();
        let pki = Pki::new(&self.settings.pki);
        let opened = {
            let pki = pki.clone();
            tokio::task::spawn_blocking(move || pki.own(now).map(|own| (pki.store(), own)))
        };
        let (store, own) = opened.await.map_err(|error| DriverError::NotConnected(error.to_string()))??;
        let Settings { url, security, login, timeout, .. } = &self.settings;
        let application = Application::new(store, own);
        let endpoints = Link::endpoints(&application, url, *timeout).await?;
        let endpoint = endpoint::choose(&endpoints, url, *security, login)?;
        self.expiries = vec![Expiry::of("the agent", &application.own.certificate)];
        if endpoint.security_mode != MessageSecurityMode::None {
            let der = endpoint.server_certificate.value.as_deref().unwrap_or_default();
            pki.check(der, endpoint.server.application_uri.as_ref(), now, &application.own)?;
            self.expiries
                .extend(opcua::crypto::X509::from_der(der).map(|server| Expiry::of("the server", &server)));
        }
        let identity = endpoint::identity(login, &endpoint)?;
        let mut link = Link::connect(&application, endpoint.clone(), identity, *timeout).await?;
        let own = &application.own;
        link.create_session().await.map_err(|error| with_thumbprint(error, &pki, own))?;
        let limits = Limits::fetch(&mut link).await?;
        let namespaces = items::namespaces(&mut link, &limits).await?;
        let (mut plan, mut monitor) = (None, Monitor::default());
        if let Some(Parked { plan: old, monitor: subscribed, .. }) = self.parked.take()
            && old.namespaces == namespaces
        {
            monitor = subscribed;
            if monitor.transfer(&mut link).await? {
                let mut old = old;
                monitor.resume(&mut link, &mut self.intake, &mut old, &self.points).await?;
                tracing::info!(device = self.settings.device, "the subscriptions go on in a new session");
                plan = Some(old);
            }
        }
        let plan = match plan {
            Some(plan) => plan,
            None => {
                let plan = Plan::make(&mut link, &limits, &self.settings, &self.points, namespaces).await?;
                monitor = match self.settings.mode {
                    Mode::Subscribe => Monitor::new(plan.items.len()),
                    Mode::Read => Monitor::polling(plan.items.len()),
                };
                for (nth, located) in plan.located.iter().enumerate() {
                    if let Err(status) = located.node {
                        self.intake.refuse(&[nth], status);
                    }
                }
                plan
            }
        };
        let longest = plan.items.iter().map(|item| item.publishing).max().unwrap_or_default();
        let first_until = Some(Instant::now() + longest + FIRST_VALUES);
        Ok(Session { link, limits, plan, monitor, next_polled: 0, first_until, endpoint, application })
    }
}

/// A server that refuses us must be told who we are: the message says what its administrator has to let in.
fn with_thumbprint(error: DriverError, pki: &Pki, own: &Own) -> DriverError {
    match error {
        DriverError::Denied(why) if why.contains("connection") => DriverError::Denied(format!(
            "{why}; let the agent's certificate in at the server: {}, SHA-1 {}",
            pki.certificate_path().display(),
            own.certificate.thumbprint().as_hex_string()
        )),
        error => error,
    }
}
