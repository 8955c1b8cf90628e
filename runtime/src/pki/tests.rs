//! What we make is read by openssl, what openssl makes is read by us, and files are what they should be.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use model::Timestamp;

use super::*;
use crate::clock::Clock;

/// Runs openssl in a folder; its output, and whether it succeeded.
fn openssl(folder: &Path, arguments: &str) -> (bool, String) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .expect("openssl is installed");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

fn good(folder: &Path, arguments: &str) -> String {
    let (is_good, text) = openssl(folder, arguments);
    assert!(is_good, "openssl {arguments}: {text}");
    text
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn openssl_verifies_what_the_plant_ca_issues() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let now = Clock::machine().now();
    let authority =
        Authority::make_files("Forebay plant CA antwerp", &at("ca.crt"), &at("ca.key"), now).unwrap();
    assert_eq!((mode(&at("ca.key")), mode(&at("ca.crt"))), (0o600, 0o644));

    let key = PrivateKey::make().unwrap();
    let names = ["hub.antwerp", "localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let hub = authority.issue_server(&names, &key, now).unwrap();
    assert_eq!(hub.certificate.server_names(), names);
    write_new_private(&at("hub.key"), &key.to_pem()).unwrap();
    write_new(&at("hub.crt"), &(hub.pem.clone() + authority.pem())).unwrap();
    good(dir.path(), "verify -x509_strict -purpose sslserver -CAfile ca.crt hub.crt");
    for check in ["-verify_hostname hub.antwerp", "-verify_ip 127.0.0.1", "-verify_ip ::1"] {
        good(dir.path(), &format!("verify -CAfile ca.crt {check} hub.crt"));
    }
    assert!(!openssl(dir.path(), "verify -CAfile ca.crt -verify_hostname other hub.crt").0);
    assert!(!openssl(dir.path(), "verify -purpose sslclient -CAfile ca.crt hub.crt").0);

    let agent_key = PrivateKey::make().unwrap();
    let request = agent_key.request("whatever it says").unwrap();
    std::fs::write(at("agent.csr"), &request).unwrap();
    good(dir.path(), "req -in agent.csr -verify -noout");
    let agent = authority.issue_client("antwerp/Ölpumpe 3", &request, now, CLIENT_VALIDITY).unwrap();
    std::fs::write(at("agent.crt"), &agent.pem).unwrap();
    good(dir.path(), "verify -x509_strict -purpose sslclient -CAfile ca.crt agent.crt");
    assert!(!openssl(dir.path(), "verify -purpose sslserver -CAfile ca.crt agent.crt").0);
    let subject =
        good(dir.path(), "x509 -in agent.crt -noout -subject -nameopt utf8 -serial -fingerprint -sha256");
    assert!(subject.contains("antwerp/Ölpumpe 3"), "{subject}");
    let shown = subject.lines().find_map(|line| line.split_once("ingerprint=")).unwrap().1;
    assert_eq!(shown.parse::<Fingerprint>().unwrap(), agent.certificate.fingerprint);
    let serial = agent.certificate.serial.replace(':', "").to_uppercase();
    assert!(subject.contains(&format!("serial={serial}")), "{subject} {serial}");
    assert_eq!(agent.certificate.common_name.as_deref(), Some("antwerp/Ölpumpe 3"));
    assert_eq!(agent.certificate.days_left(now), 89);
    assert!(agent_key.fits(&agent.certificate) && !key.fits(&agent.certificate));
    // A certificate of an agent cannot issue another one.
    std::fs::write(at("agent.key"), agent_key.to_pem()).unwrap();
    assert!(Authority::load(&at("agent.crt"), &at("agent.key")).unwrap_err().to_string().contains("no CA"));
}

#[test]
fn nothing_is_issued_beyond_the_ca_or_with_names_that_are_none() {
    let now = Timestamp(1_700_000_000_000_000);
    let (authority, _) = Authority::make("CA", now).unwrap();
    let later = Timestamp(authority.certificate().not_after.micros() - 86_400_000_000);
    let request = PrivateKey::make().unwrap().request("x").unwrap();
    let late = authority.issue_client("x", &request, later, CLIENT_VALIDITY).unwrap();
    assert_eq!(late.certificate.not_after, authority.certificate().not_after);
    let after = Timestamp(later.micros() + 2 * 86_400_000_000);
    let error = authority.issue_client("x", &request, after, CLIENT_VALIDITY).unwrap_err().to_string();
    assert!(error.contains("successor"), "{error}");
    for name in ["", " x", "a\nb", &"x".repeat(65)] {
        assert!(authority.issue_client(name, &request, now, CLIENT_VALIDITY).is_err(), "{name:?}");
    }
    for name in ["", "a b", "-x", "a..b", "http://x", "x/y", "*."] {
        assert!(check_server_name(name).is_err(), "{name:?}");
    }
    for name in ["hub", "hub.plant.example", "*.plant.example", "10.0.0.1", "fe80::1", "HUB_1"] {
        check_server_name(name).unwrap();
    }
    let broken = request.replacen("MIH", "MIX", 1);
    assert_ne!(broken, request);
    for request in ["", "rubbish", &broken, &"x".repeat(100_000)] {
        assert!(authority.issue_client("x", request, now, CLIENT_VALIDITY).is_err());
    }
    // A request whose signature is not by its key: possession of the key is not proved.
    let (first, second) = (PrivateKey::make().unwrap(), PrivateKey::make().unwrap());
    let der = |key: &PrivateKey| {
        let pem = key.request("x").unwrap();
        rustls::pki_types::CertificateSigningRequestDer::from(
            <rustls::pki_types::CertificateSigningRequestDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(
                pem.as_bytes(),
            )
            .unwrap()
            .to_vec(),
        )
    };
    let (one, two) = (der(&first), der(&second));
    let spki = two
        .windows(65)
        .position(|window| window[0] == 4 && second.pair().public_key_raw() == window)
        .unwrap();
    let mut mixed = one.to_vec();
    mixed[spki..spki + 65].copy_from_slice(second.pair().public_key_raw());
    let mixed = files::pem_text("CERTIFICATE REQUEST", &mixed);
    let error = authority.issue_client("x", &mixed, now, CLIENT_VALIDITY).unwrap_err().to_string();
    assert!(error.contains("signature"), "{error}");
}

#[test]
fn certificates_of_a_company_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("ca.ext"), "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n").unwrap();
    std::fs::write(
        at("end.ext"),
        "subjectAltName=DNS:hub.acme.example,IP:10.1.2.3,URI:urn:hub,email:it@acme.example\n",
    )
    .unwrap();
    let run = |arguments: &str| good(dir.path(), arguments);
    run(
        "req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.crt -subj /O=Acme/CN=Acme-Root -days 3650",
    );
    run("req -newkey rsa:2048 -nodes -keyout mid.key -out mid.csr -subj /O=Acme/CN=Acme-Issuing");
    run(
        "x509 -req -in mid.csr -CA root.crt -CAkey root.key -set_serial 7 -days 1000 -extfile ca.ext -out mid.crt",
    );
    run("req -newkey rsa:2048 -nodes -keyout end.key -out end.csr -subj /O=Acme/CN=hub.acme.example");
    run(
        "x509 -req -in end.csr -CA mid.crt -CAkey mid.key -set_serial 8 -days 100 -extfile end.ext -out end.crt",
    );
    let chain = ["end.crt", "mid.crt", "root.crt"].map(|name| std::fs::read_to_string(at(name)).unwrap());
    std::fs::write(at("chain.pem"), chain.concat()).unwrap();
    let read = read_certificates(&at("chain.pem")).unwrap();
    let [end, mid, root] = read.as_slice() else { panic!("{read:?}") };
    assert_eq!(end.server_names(), ["hub.acme.example", "10.1.2.3"]);
    assert_eq!(
        end.identities().collect::<Vec<_>>(),
        ["hub.acme.example", "hub.acme.example", "urn:hub", "it@acme.example"]
    );
    assert_eq!((end.is_ca, mid.is_ca, root.is_ca), (false, true, true));
    assert_eq!((mid.is_self_issued, root.is_self_issued), (false, true));
    assert_eq!((end.serial.as_str(), end.days_left(Clock::machine().now())), ("08", 99));
    // Its issuing CA, RSA, can serve as the plant's.
    let authority = Authority::load(&at("mid.crt"), &at("mid.key")).unwrap();
    let key = PrivateKey::make().unwrap();
    let agent = authority
        .issue_client("line-3", &key.request("x").unwrap(), Clock::machine().now(), CLIENT_VALIDITY)
        .unwrap();
    std::fs::write(at("agent.crt"), agent.pem).unwrap();
    run("verify -CAfile root.crt -untrusted mid.crt -purpose sslclient agent.crt");
    assert!(
        Authority::load(&at("mid.crt"), &at("end.key")).unwrap_err().to_string().contains("does not belong")
    );
    // Forms of keys that people have.
    run("rsa -in end.key -traditional -out pkcs1.key");
    run("ecparam -name prime256v1 -genkey -noout -out sec1.key");
    for name in ["end.key", "pkcs1.key", "sec1.key"] {
        let key = read_pem(&at(name)).unwrap().key.unwrap();
        PrivateKey::from_der(&key).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn files_that_hold_something_else_are_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (authority, key) = Authority::make("CA", Timestamp(1_700_000_000_000_000)).unwrap();
    std::fs::write(at("der"), &*authority.certificate().der).unwrap();
    std::fs::write(at("key"), key.to_pem()).unwrap();
    std::fs::write(at("text"), "hello").unwrap();
    std::fs::write(at("damaged"), authority.pem().replacen("MII", "M!I", 1)).unwrap();
    std::fs::write(at("cut"), &authority.pem()[..200]).unwrap();
    std::fs::write(at("large"), vec![b'x'; PEM_BYTES_MAX + 1]).unwrap();
    std::fs::write(at("many"), authority.pem().repeat(CERTIFICATES_MAX + 1)).unwrap();
    for (name, expected) in [
        ("der", "openssl x509 -inform der"),
        ("key", "holds a key but no certificate"),
        ("text", "no certificate"),
        ("damaged", "damaged"),
        ("cut", "damaged"),
        ("large", "larger than"),
        ("many", "more than 64"),
        ("missing", "No such file"),
    ] {
        let error = read_certificates(&at(name)).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(name), "{name}: {error}");
    }
}

#[test]
fn files_are_replaced_whole_and_never_over_one_that_must_stay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.pem");
    write_new_private(&path, "one").unwrap();
    assert!(write_new_private(&path, "two").unwrap_err().to_string().contains("exists"));
    assert!(write_new(&path, "two").is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    write_private(&path, "three").unwrap();
    assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("three", 0o600));
    write_public(&path, "four").unwrap();
    assert_eq!(mode(&path), 0o644);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn fingerprints_are_read_in_both_forms() {
    let fingerprint = Fingerprint::of(b"x");
    assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
    let with_colons: Vec<String> = fingerprint.0.iter().map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(with_colons.join(":").parse(), Ok(fingerprint));
    for wrong in ["", "sha256:", "sha256:12", &"g".repeat(64), &"ä".repeat(32), &"+1".repeat(32)] {
        assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
    }
}
