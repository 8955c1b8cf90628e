//! Our broker as the load meets it: `forebay run` with nothing but `[hub]`, and one identity that may publish and subscribe
//! what the load uses and logs in with a token.
//!
//! Its limits are above what the load needs; nothing else is changed. For TLS it gets a certificate made with openssl.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::{Broker, Needs, free_door, launch, write};

const USER: &str = "bench";
/// No secret: the broker that takes it lives for one run, on loopback.
const TOKEN: &str = "forebay-bench-not-a-secret";
const TOKEN_SHA256: &str = "00858cfdb25e6c078e36be50ffccf399ee73863f3cbe18c0911de43cafcaf2e4";

pub(super) fn start(program: &Path, dir: &Path, needs: Needs) -> Result<Broker, String> {
    let mut door = free_door(Some((USER, TOKEN)), None)?;
    let mut text = format!(
        "version = 1\nenterprise = \"bench\"\nsite = \"bench\"\n[hub]\ndata_dir = \"hub\"\n\
         [hub.http]\nlisten = \"127.0.0.1:0\"\n[hub.broker]\nlisten = \"{}\"\naccess_file = \"access.toml\"\n\
         [hub.broker.limits]\nconnections = 20000\nconnections_per_address = 20000\n\
         session_messages = 100000000\nsession_bytes = \"20GB\"\njournal_bytes = \"20GB\"\n",
        door.address
    );
    let access = format!(
        "version = 1\n[roles.bench]\npublish = [\"bench/#\"]\nsubscribe = [\"bench/#\"]\n\
         [[identities]]\nname = \"{USER}\"\nroles = [\"bench\"]\ntoken = \"sha256:{TOKEN_SHA256}\"\n"
    );
    if needs.tls {
        make_certificates(dir)?;
        door = free_door(Some((USER, TOKEN)), Some(trusting(&dir.join("ca.crt"))?))?;
        text += &format!(
            "[[hub.broker.listeners]]\nlisten = \"{}\"\n\
             [hub.tls]\ncert_file = \"hub.crt\"\nkey_file = \"hub.key\"\nclient_ca_file = \"ca.crt\"\n",
            door.address
        );
    }
    write(dir, "hub.toml", &text)?;
    write(dir, "access.toml", &access)?;
    let mut command = Command::new(program);
    command.args(["run", "hub.toml"]).env("RUST_LOG", "warn");
    launch(command, dir, door)
}

/// A CA, and a certificate of 127.0.0.1 that it signed: `ca.crt`, `hub.crt`, `hub.key`.
fn make_certificates(dir: &Path) -> Result<(), String> {
    let key =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let openssl = |further: &[&str]| {
        let output =
            Command::new("openssl").args(key).args(further).current_dir(dir).stdin(Stdio::null()).output();
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(format!("openssl: {}", String::from_utf8_lossy(&output.stderr))),
            Err(error) => Err(format!("openssl makes the certificates of this case: {error}")),
        }
    };
    openssl(&["-subj", "/CN=bench CA", "-keyout", "ca.key", "-out", "ca.crt"])?;
    let for_whom =
        ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"];
    let by_whom = ["-CA", "ca.crt", "-CAkey", "ca.key", "-keyout", "hub.key", "-out", "hub.crt"];
    openssl(&[&["-subj", "/CN=bench hub"], for_whom.as_slice(), by_whom.as_slice()].concat())
}

/// A client that trusts this CA alone.
fn trusting(ca_file: &Path) -> Result<Arc<ClientConfig>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", ca_file.display());
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(ca_file).map_err(|error| failed(&error))?;
    roots.add(ca).map_err(|error| failed(&error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.map_err(|error| failed(&error))?.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssl_makes_what_the_client_trusts() {
        let dir = std::env::temp_dir().join(format!("forebay-bench-tls-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        make_certificates(&dir).unwrap();
        trusting(&dir.join("ca.crt")).unwrap();
        assert!(CertificateDer::from_pem_file(dir.join("hub.crt")).is_ok());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
