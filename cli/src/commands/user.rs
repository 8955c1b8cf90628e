//! `forebay user`: who may log in at the hub's broker. Works on the access file; a running hub notices.

use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use hub::broker::access_file::{self, Change, EditError, Listed, NewToken, Verdict, Wish};
use hub::config::BrokerConfig;
use model::NodeId;
use runtime::config_file::Problems;

use crate::arguments::user::{AccessFile, Act, User, UserAction, UserDetails};
use crate::output::{DONE, FAILED, USAGE};
use crate::{complain, plant, say};

/// A password is not longer; the hub takes no longer one either.
const PASSWORD_BYTES_MAX: u64 = 1_024;

/// Exit 0 if done (or allowed), 1 if not, 2 if the arguments, the configuration or the access file are wrong.
#[must_use]
pub fn run(options: &User) -> u8 {
    let done = match &options.action {
        UserAction::Add { name, roles, details, file } => add(name, roles, details, file),
        UserAction::Set { name, roles, password, details, file } => {
            set(name, roles, *password, details, file)
        }
        UserAction::List { file, json } => list(file, *json),
        UserAction::Remove { name, file } => remove(name, file),
        UserAction::Disable { name, file } => disable(name, true, file),
        UserAction::Enable { name, file } => disable(name, false, file),
        UserAction::Check { name, act, topic, file } => return check(name, *act, topic, file),
    };
    end(done)
}

fn end(done: Result<(), Failure>) -> u8 {
    match done {
        Ok(()) => DONE,
        Err(Failure::Wrong(why)) => {
            complain!("{why}");
            USAGE
        }
        Err(Failure::Failed(why)) => {
            complain!("{why}");
            FAILED
        }
    }
}

/// Why nothing was changed.
enum Failure {
    /// The arguments or a file's contents.
    Wrong(String),
    /// The machine.
    Failed(String),
}

impl From<EditError> for Failure {
    fn from(error: EditError) -> Self {
        match error {
            EditError::File { .. } => Self::Failed(error.to_string()),
            EditError::Mistakes(_) | EditError::Refused(_) | EditError::Unknown { .. } => {
                Self::Wrong(error.to_string())
            }
        }
    }
}

/// The access file, and the host id whose STATE is reserved.
fn located(file: &AccessFile) -> Result<(PathBuf, String), Failure> {
    if let Some(path) = &file.file {
        return Ok((path.clone(), "forebay".to_owned()));
    }
    let config = &file.config;
    if !config.exists() {
        let hint = "name the hub's configuration with --config, or the access file with --file";
        return Err(Failure::Wrong(format!("{}: is not there; {hint}", config.display())));
    }
    let mut problems = Problems::default();
    let Some(plant) = plant::load(config, &mut problems) else {
        plant::print_problems(&problems);
        return Err(Failure::Wrong(format!("{}: correct it first", config.display())));
    };
    match plant.hub {
        None => Err(Failure::Wrong(format!("{}: configures no hub", config.display()))),
        Some(hub) => match hub.broker {
            BrokerConfig::Embedded(own) => Ok((own.access_file, hub.host_id)),
            BrokerConfig::Outside(other) => Err(Failure::Wrong(format!(
                "{}: the hub is a client of the broker at {}, which has users of its own",
                config.display(),
                other.host
            ))),
        },
    }
}

fn add(name: &str, roles: &[String], details: &UserDetails, file: &AccessFile) -> Result<(), Failure> {
    let (path, _) = located(file)?;
    access_file::ensure(&path)?;
    // Before a password is typed: what would be refused in any case.
    if access_file::list(&path)?.iter().any(|known| known.name == name) {
        let hint = "`forebay user set` changes it";
        return Err(Failure::Wrong(format!("there is an identity {name:?} already; {hint}")));
    }
    let asks = !details.token && !details.certificate && details.password_file.is_none();
    let (mut change, token) = change(details, roles)?;
    if asks {
        change.password = Some(asked_password(name)?);
    }
    access_file::edit(&path, |edit| edit.add(name, &change))?;
    say!("added: {name} in {}", path.display());
    show_token(name, token);
    Ok(())
}

fn set(
    name: &str,
    roles: &[String],
    asks: bool,
    details: &UserDetails,
    file: &AccessFile,
) -> Result<(), Failure> {
    let (path, _) = located(file)?;
    if !access_file::list(&path)?.iter().any(|known| known.name == name) {
        return Err(EditError::Unknown { name: name.into(), path }.into());
    }
    let (mut change, token) = change(details, roles)?;
    if asks {
        change.password = Some(asked_password(name)?);
    }
    access_file::edit(&path, |edit| edit.update(name, &change))?;
    say!("changed: {name} in {}", path.display());
    show_token(name, token);
    Ok(())
}

fn remove(name: &str, file: &AccessFile) -> Result<(), Failure> {
    let (path, _) = located(file)?;
    access_file::edit(&path, |edit| edit.remove(name))?;
    say!("removed: {name} from {}", path.display());
    Ok(())
}

fn disable(name: &str, disabled: bool, file: &AccessFile) -> Result<(), Failure> {
    let (path, _) = located(file)?;
    let change = Change { disabled: Some(disabled), ..Change::default() };
    access_file::edit(&path, |edit| edit.update(name, &change))?;
    say!("{}: {name} in {}", if disabled { "disabled" } else { "enabled" }, path.display());
    Ok(())
}

fn list(file: &AccessFile, json: bool) -> Result<(), Failure> {
    let (path, _) = located(file)?;
    let all = access_file::list(&path)?;
    if json {
        all.iter().for_each(|one| say!("{}", as_json(one)));
        return Ok(());
    }
    if all.is_empty() {
        say!("{}: nobody yet; `forebay user add --help` shows how", path.display());
        return Ok(());
    }
    let name = all.iter().map(|one| one.name.chars().count()).max().unwrap_or(0).max(4);
    let roles = all.iter().map(|one| one.roles.join(",").len()).max().unwrap_or(0).max(5);
    say!("{:name$}  {:roles$}  {:31}  {:8}  node", "name", "roles", "logs in with", "state");
    for one in &all {
        let state = if one.disabled { "disabled" } else { "enabled" };
        let node = one.node.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        say!("{:name$}  {:roles$}  {:31}  {state:8}  {node}", one.name, one.roles.join(","), means(one));
    }
    Ok(())
}

fn means(one: &Listed) -> String {
    let all = [(one.password, "password"), (one.token, "token"), (one.certificate, "certificate")];
    let held: Vec<&str> = all.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
    if held.is_empty() { "nothing yet".to_owned() } else { held.join(", ") }
}

fn as_json(one: &Listed) -> serde_json::Value {
    serde_json::json!({
        "name": one.name, "node": one.node.as_ref().map(ToString::to_string), "roles": one.roles,
        "password": one.password, "token": one.token, "certificate": one.certificate,
        "certificates_from_us": one.certificates_from.map(|time| time.micros()), "disabled": one.disabled,
    })
}

fn check(name: &str, act: Act, topic: &str, file: &AccessFile) -> u8 {
    let asked = located(file).and_then(|(path, host_id)| {
        let wish = match act {
            Act::Publish => Wish::Publish(topic),
            Act::Subscribe => Wish::Subscribe(topic),
        };
        let known = access_file::list(&path)?.into_iter().find(|one| one.name == name);
        Ok((access_file::check(&path, name, wish, &host_id)?, known.is_some_and(|one| one.disabled)))
    });
    let (verdict, disabled) = match asked {
        Ok(asked) => asked,
        Err(failure) => return end(Err(failure)),
    };
    let (answer, code) = match verdict {
        Verdict::Allowed { role, filter } => (format!("yes: role {role} allows {filter}"), DONE),
        Verdict::AllowedTogether => ("yes: several filters of its roles together allow it".to_owned(), DONE),
        Verdict::Reserved(why) => (format!("no: {why}"), FAILED),
        Verdict::NoRole => ("no: none of its roles allows it".to_owned(), FAILED),
    };
    say!("{answer}");
    if disabled {
        say!("but {name} is disabled and cannot log in");
        return FAILED;
    }
    code
}

/// What the arguments ask for; a new token beside it.
fn change(details: &UserDetails, roles: &[String]) -> Result<(Change, Option<String>), Failure> {
    let node = details.node.as_deref().map(|text| {
        NodeId::parse(text)
            .map_err(|error| Failure::Wrong(format!("--node {text} must be GROUP/NODE: {error}")))
    });
    let secret = |error: access_file::SecretError| Failure::Failed(error.to_string());
    let token = details.token.then(NewToken::make).transpose().map_err(secret)?;
    let password = details.password_file.as_deref().map(password_from).transpose()?;
    let change = Change {
        roles: (!roles.is_empty()).then(|| roles.to_vec()),
        node: node.transpose()?,
        password: password.map(|text| hash(&text)).transpose()?,
        token: token.as_ref().map(|token| token.hash.clone()),
        certificate: details.certificate.then_some(true),
        ..Change::default()
    };
    Ok((change, token.map(|token| token.text)))
}

fn show_token(name: &str, token: Option<String>) {
    let Some(token) = token else { return };
    say!("its token, shown once and nowhere kept; MQTT user name {name}, password:");
    say!("{token}");
}

/// Typed twice without echo; a line of standard input where nobody types.
fn asked_password(name: &str) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return hash(&first_line(&mut std::io::stdin().lock(), "standard input")?);
    }
    let ask = |prompt: String| {
        rpassword::prompt_password(prompt)
            .map_err(|error| Failure::Failed(format!("the password cannot be read: {error}")))
    };
    let password = ask(format!("Password for {name}: "))?;
    if ask("Again: ".to_owned())? != password {
        return Err(Failure::Wrong("the two are not the same; nothing was changed".into()));
    }
    hash(&password)
}

fn password_from(path: &Path) -> Result<String, Failure> {
    if path == Path::new("-") {
        return first_line(&mut std::io::stdin().lock(), "standard input");
    }
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|error| Failure::Failed(format!("{name}: {error}")))?;
    first_line(&mut std::io::BufReader::new(file), &name)
}

fn first_line(from: &mut dyn std::io::BufRead, name: &str) -> Result<String, Failure> {
    let mut line = String::new();
    let read = from.take(PASSWORD_BYTES_MAX + 2).read_line(&mut line);
    read.map_err(|error| Failure::Failed(format!("{name}: {error}")))?;
    match line.trim_end_matches(['\r', '\n']) {
        "" => Err(Failure::Wrong(format!("{name}: holds no password in its first line"))),
        password => Ok(password.to_owned()),
    }
}

fn hash(password: &str) -> Result<String, Failure> {
    access_file::hash_password(password.as_bytes()).map_err(|error| Failure::Wrong(error.to_string()))
}

#[cfg(test)]
mod tests;
