//! Who may log in at the hub's broker, and what an identity may publish, subscribe and receive. Closed by default.
//!
//! | who | how | rights |
//! |---|---|---|
//! | an identity of the access file | password (argon2id), token, or client certificate for its name | its roles' filters |
//! | an agent on this machine: user `group/node` | the password in `{data_dir}/agent-token`, from loopback only | role `agent` for that node |
//! | nobody | only where the listener has `anonymous_read` | subscribes `#`, publishes nothing |
//!
//! - Identity comes from the login, never from the client id.
//! - What a role says is never more than [`rights`] allows: commands, STATE of this host and `$…` are the hub's own.
//! - The access file is read again within a second of a change ([`AccessBook::generation`] moves); one with a mistake
//!   changes nothing, and [`AccessBook::problem`] says what is wrong with it.
//! - A login ends with what proved it: a changed password or token, `disabled`, or a certificate from before
//!   `certificates_from` make [`AccessBook::rights`] return `None`, and the core disconnects.
//! - Passwords are verified on blocking threads, a few at a time; tokens and certificates cost next to nothing.
//! - Wrong passwords empty a bucket per address and name, and a larger one per address; an empty one refuses passwords
//!   unseen. What is cheap to check (certificates, tokens, a password verified before) always passes, so that a stranger
//!   behind the same address cannot lock out the agents.

pub mod edit;
mod file;
mod login;
mod password;
mod pattern;
mod rights;
mod watch;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use model::{NodeId, Timestamp};
use runtime::tasks::{TaskKind, Tasks};

use super::BrokerError;
use file::AccessFile;
use login::Doorkeeper;
use rights::Reserved;
pub(super) use rights::Rights;

/// The name of clients without a login; no identity of the file may have it.
const ANONYMOUS: &str = "anonymous";

/// The role of agents that log in with the agents' password.
const AGENT_ROLE: &str = "agent";

/// What a client shows at CONNECT.
#[derive(Debug)]
pub(super) struct Credentials<'a> {
    /// User name.
    pub(super) user: Option<&'a str>,
    /// Password, or a token.
    pub(super) password: Option<&'a [u8]>,
    /// The client certificate, verified by TLS.
    pub(super) certificate: Option<ClientCertificate>,
    /// Where the client is.
    pub(super) peer: SocketAddr,
    /// Whether it came through loopback.
    pub(super) loopback: bool,
    /// Whether the listener lets in whoever has no login, for reading.
    pub(super) anonymous_read: bool,
}

/// A client certificate that TLS found good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientCertificate {
    /// Common name, then subject alternative names.
    pub(super) names: Vec<String>,
    /// Start of its validity.
    pub(super) not_before: Timestamp,
    /// Serial number in hex, for the log.
    pub(super) serial: String,
}

/// Who a client is, and what proved it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    name: String,
    node: Option<NodeId>,
    proof: Proof,
}

/// What proved an identity. A proof that no longer holds ends the login.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Proof {
    /// None was needed: may read only.
    None,
    /// The agents' password of this machine.
    AgentPassword,
    /// A password; its hash as written in the file.
    Password(Arc<str>),
    /// A token; its hash.
    Token([u8; 32]),
    /// A certificate valid from this time on.
    Certificate(Timestamp),
}

impl Identity {
    /// Name in the access file; `group/node` of an agent of this machine; `anonymous`. Unique: owns client ids and sessions.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How it logged in, for people.
    pub(super) fn how(&self) -> &'static str {
        match self.proof {
            Proof::None => "no login",
            Proof::AgentPassword => "agents' password of this machine",
            Proof::Password(_) => "password",
            Proof::Token(_) => "token",
            Proof::Certificate(_) => "certificate",
        }
    }
}

/// An accepted login.
#[derive(Clone, Debug)]
pub(super) struct Login {
    /// Who.
    pub(super) identity: Arc<Identity>,
    /// What that identity may do at this generation.
    pub(super) rights: Arc<Rights>,
}

/// A refused login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// MQTT 5 CONNACK reason code: 0x86 wrong, 0x87 not authorised, 0x89 busy, 0x9F too many wrong ones.
    pub(super) reason: u8,
    /// For the log; holds no secret. Not for the client, whom it would tell which names exist.
    pub(super) why: String,
}

/// The rules of one reading of the file.
#[derive(Debug)]
struct Rules {
    file: AccessFile,
    /// Of `file.identities`, same order.
    rights: Vec<OnceLock<Arc<Rights>>>,
}

/// Who may what: cheap to clone, shared by door and core.
#[derive(Clone, Debug)]
pub(super) struct AccessBook(Arc<Book>);

#[derive(Debug)]
struct Book {
    path: PathBuf,
    rules: RwLock<Arc<Rules>>,
    generation: AtomicU64,
    problem: RwLock<Option<String>>,
    anonymous: Arc<Rights>,
    reserved: Arc<Reserved>,
    agent_password: Vec<u8>,
    doorkeeper: Doorkeeper,
}

impl AccessBook {
    /// Opens the access file, or makes it, and the agents' password beside it in `data_dir`; watches it until shutdown.
    /// `host_id` is the Sparkplug host whose STATE is reserved.
    ///
    /// # Errors
    /// The file cannot be read or made, or has mistakes: a broker does not start with rules it does not understand.
    pub(super) fn open(
        path: &Path,
        data_dir: &Path,
        host_id: &str,
        tasks: &Tasks,
    ) -> Result<AccessBook, BrokerError> {
        let agent_password = password::agent_password(data_dir)?.into_bytes();
        edit::ensure(path).map_err(|error| BrokerError::Access(error.to_string()))?;
        let (watch, file) = watch::Watch::begin(path);
        let file = file.map_err(BrokerError::Access)?;
        let reserved = Arc::new(Reserved::new(host_id));
        let book = AccessBook(Arc::new(Book {
            path: path.to_owned(),
            rules: RwLock::new(Arc::new(Rules::new(file))),
            generation: AtomicU64::new(1),
            problem: RwLock::default(),
            anonymous: Arc::new(Rights::anonymous(Arc::clone(&reserved))),
            reserved,
            agent_password,
            doorkeeper: Doorkeeper::new().map_err(|error| BrokerError::Access(error.to_string()))?,
        }));
        tasks.spawn(TaskKind::Housekeeping, "access file", watch.run(book.clone(), tasks.shutdown()));
        Ok(book)
    }

    /// Moves when a changed file has been read: check live sessions again with [`AccessBook::rights`].
    pub(super) fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// What is wrong with the file as it is now; the rules are those of its last good reading.
    pub(super) fn problem(&self) -> Option<String> {
        self.0.problem.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a logged-in identity may do now; `None`: it is gone, or what proved it no longer holds. Disconnect it.
    pub(super) fn rights(&self, identity: &Identity) -> Option<Arc<Rights>> {
        let rules = self.rules();
        match &identity.proof {
            Proof::None => return Some(Arc::clone(&self.0.anonymous)),
            Proof::AgentPassword => return self.agent_rights(&rules, identity.node.as_ref()?),
            Proof::Password(_) | Proof::Token(_) | Proof::Certificate(_) => {}
        }
        let (nth, entry) = rules.file.find(&identity.name)?;
        let holds = match &identity.proof {
            Proof::Password(hash) => entry.password.as_ref().is_some_and(|now| now.text() == &**hash),
            Proof::Token(hash) => entry.token.as_ref() == Some(hash),
            Proof::Certificate(from) => entry.accepts_certificate(*from),
            Proof::None | Proof::AgentPassword => false,
        };
        (holds && !entry.disabled && entry.node == identity.node)
            .then(|| self.listed_rights(&rules, nth))
            .flatten()
    }

    /// What an identity of this name may do, logged in or not: for sessions whose client is away.
    pub(super) fn rights_of(&self, name: &str) -> Option<Arc<Rights>> {
        if name == ANONYMOUS {
            return Some(Arc::clone(&self.0.anonymous));
        }
        let rules = self.rules();
        if let Ok(node) = NodeId::parse(name) {
            return self.agent_rights(&rules, &node);
        }
        let (nth, entry) = rules.file.find(name)?;
        (!entry.disabled).then(|| self.listed_rights(&rules, nth)).flatten()
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.0.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn listed_rights(&self, rules: &Rules, nth: usize) -> Option<Arc<Rights>> {
        let (entry, compiled) = (rules.file.identities.get(nth)?, rules.rights.get(nth)?);
        let compile = || Arc::new(rules.file.rights(entry, &self.0.reserved));
        Some(Arc::clone(compiled.get_or_init(compile)))
    }

    /// Role `agent` for a node of this machine; `None` if the file has no such role.
    fn agent_rights(&self, rules: &Rules, node: &NodeId) -> Option<Arc<Rights>> {
        let role = rules.file.roles.get_key_value(AGENT_ROLE)?;
        let name = node.node();
        Some(Arc::new(Rights::new(std::iter::once(role), name, Some(node), Arc::clone(&self.0.reserved))))
    }

    /// Takes the rules of a changed file, or notes what is wrong with it.
    fn take(&self, file: Result<AccessFile, String>) {
        let problem = match file {
            Ok(file) => {
                *self.0.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Rules::new(file));
                self.0.generation.fetch_add(1, Ordering::AcqRel);
                tracing::info!(file = %self.0.path.display(), "the broker's access rules have changed");
                None
            }
            Err(problem) => {
                tracing::error!(
                    file = %self.0.path.display(), %problem,
                    "the changed access file has mistakes: the rules from before still hold"
                );
                Some(problem)
            }
        };
        *self.0.problem.write().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

impl Rules {
    fn new(file: AccessFile) -> Rules {
        Rules { rights: file.identities.iter().map(|_| OnceLock::new()).collect(), file }
    }
}

#[cfg(test)]
mod tests;
