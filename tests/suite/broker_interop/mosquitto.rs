//! `mosquitto_sub` and `mosquitto_pub`, as processes.

use std::process::Command;
use std::time::Duration;

use forebay_tests::peers::{program, run};
use forebay_tests::process::Running;

use super::{AGENT, Case, PASSWORD, Site, Transport, USER};

const PATIENCE: Duration = Duration::from_secs(20);

/// The program with all that it needs to log in, its output line by line.
fn client(site: &Site, case: &Case, name: &str) -> Command {
    let mut command = Command::new("stdbuf");
    command.arg("-oL").arg(program(name));
    let version = if case.version == 4 { "311" } else { "5" };
    command.args(["-h", "localhost", "-V", version, "-p", &site.port(case.transport).to_string()]);
    if case.transport == Transport::Tls {
        command.arg("--cafile").arg(site.ca());
    }
    if case.certificate {
        command.arg("--cert").arg(site.certificate()).arg("--key").arg(site.certificate());
    } else {
        command.args(["-u", USER, "-P", PASSWORD]);
    }
    command
}

fn publish(site: &Site, case: &Case, name: &str, arguments: &[&str]) {
    let topic = format!("{}/{name}", case.topic);
    run(client(site, case, "mosquitto_pub").args(["-t", &topic]).args(arguments));
}

pub(super) fn check(site: &Site, case: &Case) {
    let topic = &case.topic;
    let mut willing = client(site, case, "mosquitto_sub");
    willing.args(["-d", "-t", &format!("{topic}/nothing"), "--will-topic", &format!("{topic}/will")]);
    let mut willing =
        Running::start(willing.args(["--will-payload", "gone", "--will-qos", "1", "--will-retain"]));
    let mut reader = client(site, case, "mosquitto_sub");
    let format = if case.version == 4 { "%t|%q|%r|%p" } else { "%t|%q|%r|%p|%P" };
    reader.args(["-d", "-q", "2", "-t", &format!("{topic}/#"), "-F", format]);
    let mut reader = Running::start(&mut reader);
    willing.wait_for_line("Subscribed", PATIENCE);
    reader.wait_for_line("Subscribed (mid: 1): 2", PATIENCE);
    for qos in ["0", "1", "2"] {
        let name = format!("Ölpumpe/q{qos}");
        publish(site, case, &name, &["-q", qos, "-m", "läuft"]);
        reader.wait_for_line(&format!("{topic}/{name}|{qos}|0|läuft"), PATIENCE);
    }
    let large = "0123456789".repeat(30_000);
    let file = site.at("large");
    std::fs::write(&file, &large).unwrap();
    publish(site, case, "large", &["-q", "1", "-f", file.to_str().unwrap()]);
    reader.wait_for_line(&format!("{topic}/large|1|0|{large}"), PATIENCE);
    if case.version == 5 {
        let properties = "-D publish user-property k v -D publish user-property k w";
        let arguments: Vec<&str> = ["-m", "named"].into_iter().chain(properties.split(' ')).collect();
        publish(site, case, "properties", &arguments);
        reader.wait_for_line(&format!("{topic}/properties|0|0|named|k:v k:w"), PATIENCE);
    }
    publish(site, case, "kept", &["-q", "1", "-r", "-m", "kept"]);
    reader.wait_for_line(&format!("{topic}/kept|1|0|kept"), PATIENCE);
    let retained = |name: &str| {
        let mut late = client(site, case, "mosquitto_sub");
        late.args(["-q", "1", "-C", "1", "-W", "20", "-F", "%q|%r|%p", "-t", &format!("{topic}/{name}")]);
        String::from_utf8(run(&mut late).stdout).unwrap()
    };
    assert_eq!(retained("kept"), "1|1|kept\n");
    willing.kill();
    reader.wait_for_line(&format!("{topic}/will|1|0|gone"), PATIENCE);
    assert_eq!(retained("will"), "1|1|gone\n");
    for name in ["kept", "will"] {
        publish(site, case, name, &["-q", "1", "-r", "-n"]);
    }
    let heard = reader.output();
    let messages = heard.lines().filter(|line| line.starts_with(topic.as_str())).count();
    assert!(messages >= 6 + usize::from(case.version == 5), "{}", heard.len());
}

pub(super) fn a_wrong_password_is_refused(site: &Site) {
    for version in ["311", "5"] {
        let mut command = Command::new(program("mosquitto_pub"));
        command.args(["-h", "localhost", "-V", version, "-p", &site.port(Transport::Tcp).to_string()]);
        let output =
            command.args(["-u", USER, "-P", "wrong", "-t", "interop/x", "-m", "x"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let refusal = ["authorised", "authorized", "user name or password"];
        let is_refused = refusal.iter().any(|words| said.to_lowercase().contains(words));
        assert!(!output.status.success() && is_refused, "{said}");
    }
}

/// A certificate for the same name, by somebody else.
pub(super) fn a_certificate_of_another_ca_is_refused(site: &Site) {
    let made =
        format!("req -x509 -newkey rsa:2048 -nodes -keyout false.key -out false.crt -subj /CN={AGENT}");
    run(Command::new("openssl").args(made.split(' ')).current_dir(site.at("")));
    let mut command = Command::new(program("mosquitto_pub"));
    command
        .args(["-h", "localhost", "-p", &site.port(Transport::Tls).to_string(), "--cafile"])
        .arg(site.ca());
    command.arg("--cert").arg(site.at("false.crt")).arg("--key").arg(site.at("false.key"));
    let output = command.args(["-q", "1", "-t", "interop/x", "-m", "x"]).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
}
