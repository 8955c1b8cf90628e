//! Who may log in is changed on a running hub with `forebay user`; live connections feel it within a second.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use forebay_tests::peers::program;
use forebay_tests::plant::Plant;
use forebay_tests::process::{eventually, forebay};

/// A change is effective within a second; the rest is for a machine that is busy with other tests.
const SOON: Duration = Duration::from_millis(1_500);

fn user(plant: &Plant, arguments: &[&str]) -> Output {
    Command::new(forebay()).arg("user").args(arguments).current_dir(plant.dir()).output().unwrap()
}

/// `forebay user` that shall succeed; what it printed.
fn done(plant: &Plant, arguments: &[&str]) -> String {
    let output = user(plant, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// An MQTT 3.1.1 connection by hand, so that nothing reconnects behind the test's back.
fn connect(plant: &Plant, client: &str, name: &str, password: &str) -> Result<TcpStream, u8> {
    let text = |text: &str| [&u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat();
    let head = [&text("MQTT")[..], &[4, 0xC2, 0, 60]].concat();
    let body = [head, text(client), text(name), text(password)].concat();
    assert!(body.len() < 128, "one byte of length");
    let mut stream = TcpStream::connect(plant.mqtt).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(&[&[0x10, u8::try_from(body.len()).unwrap()], &body[..]].concat()).unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    if answer == [0x20, 2, 0, 0] { Ok(stream) } else { Err(answer[3]) }
}

/// How long until the hub hangs up.
fn hangs_up(mut stream: TcpStream) -> Duration {
    let begun = Instant::now();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).ok(); // an end or a reset
    begun.elapsed()
}

#[test]
fn identities_come_and_go_while_the_hub_runs() {
    let plant = Plant::new(&["a"]);
    let _hub = plant.start_hub();
    let said = done(&plant, &["add", "screen", "--role", "reader", "--token"]);
    let token = said.lines().last().unwrap();
    let sub = |password: &str| {
        let mut command = Command::new(program("mosquitto_sub"));
        let at =
            ["-h", &plant.mqtt.ip().to_string(), "-p", &plant.mqtt.port().to_string()].map(str::to_owned);
        command.args(at).args([
            "-u",
            "screen",
            "-P",
            password,
            "-t",
            "spBv1.0/STATE/forebay",
            "-C",
            "1",
            "-W",
            "5",
        ]);
        command.output().unwrap().status.success()
    };
    eventually(SOON, "the new identity", || sub(token).then_some(()));
    assert!(!sub("wrong") && !sub(""), "only its token");

    let live = connect(&plant, "live", "screen", token).unwrap();
    let other = connect(&plant, "other", "a", "secret of a").unwrap();
    done(&plant, &["disable", "screen"]);
    let took = hangs_up(live);
    assert!(took < SOON, "{took:?}");
    assert_eq!(connect(&plant, "again", "screen", token).unwrap_err(), 5, "not authorised");
    done(&plant, &["enable", "screen"]);
    eventually(SOON, "enabled", || connect(&plant, "again", "screen", token).ok());

    let live = connect(&plant, "live", "screen", token).unwrap();
    done(&plant, &["set", "screen", "--token"]);
    assert!(hangs_up(live) < SOON, "another token");
    other.set_nonblocking(true).unwrap();
    let stays = (&other).read(&mut [0; 1]).unwrap_err();
    assert_eq!(stays.kind(), std::io::ErrorKind::WouldBlock, "nobody else is concerned");

    // Mistakes change nothing, whoever makes them.
    let file = plant.dir().join("hub/access.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    assert_eq!(user(&plant, &["add", "x", "--role", "king", "--token"]).status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), good);
    std::fs::write(&file, good.replace("[\"agent\"]", "[\"agnet\"]")).unwrap();
    std::thread::sleep(SOON);
    let stays = (&other).read(&mut [0; 1]).unwrap_err();
    assert_eq!(stays.kind(), std::io::ErrorKind::WouldBlock);
    assert!(connect(&plant, "more", "a", "secret of a").is_ok(), "the rules from before hold");
    assert_eq!(user(&plant, &["list"]).status.code(), Some(2), "the mistake is told");
    std::fs::write(&file, good).unwrap();
    done(&plant, &["remove", "a"]);
    other.set_nonblocking(false).unwrap();
    assert!(hangs_up(other) < SOON, "removed");
}
