//! A set-point from the command line to a PLC that is not ours, and everything that must be refused.

use std::process::{Command, Output};
use std::time::Duration;

use forebay_tests::peers::{python, script};
use forebay_tests::plant::Plant;
use forebay_tests::process::{Running, eventually, forebay, free_address};

fn command(plant: &Plant, arguments: &[&str]) -> Output {
    let mut command = Command::new(forebay());
    command.args(["command", arguments[0]]);
    command
        .args(["--hub", &format!("http://{}", plant.http), "--token-file"])
        .arg(plant.dir().join("hub/token"));
    command.args(&arguments[1..]);
    command.output().unwrap()
}

fn write(plant: &Plant, path: &str, value: &str) -> (i32, String) {
    let output = command(plant, &["write", path, value, "--expires", "5s", "--reason", "a test"]);
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

#[test]
fn a_set_point_arrives_and_what_is_not_allowed_is_refused() {
    let plant = Plant::new(&["a"]);
    let port = free_address().port();
    let mut device = Running::start(Command::new(python()).arg(script("plc.py")).arg(port.to_string()));
    device.wait_for_line("listening", Duration::from_secs(20));
    plant.write(
        "plc.csv",
        "name,address,type,unit,min,max,writable,path\n\
         level,hr:10,f32,%,0,80,true,line/level\nspeed,hr:20,u16,,0,3000,true,line/speed\nn,hr:0,u16,,,,,line/n\n",
    );
    plant.agent(
        "a",
        &format!(
            "[[edge.devices]]\nname = \"plc\"\ndriver = \"modbus-tcp\"\naddress = \"127.0.0.1:{port}\"\n\
             poll = \"100ms\"\npoints = \"plc.csv\"\n"
        ),
    );
    let _hub = plant.start_hub();
    let _agent = plant.start("a");
    // The agent executes nothing before it knows the hub's clock, which comes with the first receipt.
    eventually(Duration::from_secs(30), "the first write", || {
        (write(&plant, "line/level", "42.5").0 == 0).then_some(())
    });
    eventually(Duration::from_secs(5), "the value", || {
        plant.last("line/level").filter(|last| last["v"] == 42.5)
    });
    let (code, text) = write(&plant, "line/speed", "1200");
    assert!(code == 0 && text.contains("done") && text.contains("1200"), "{code} {text}");
    for (path, value, why) in [
        ("line/level", "81", "refused: "),
        ("line/level", "-1", "refused: "),
        ("line/speed", "1.5", "refused: "),
        ("line/speed", "fast", "refused: "),
        ("line/n", "1", "refused: "),
        ("line/nowhere", "1", "refused"),
    ] {
        let (code, text) = write(&plant, path, value);
        assert!(code == 1 && text.contains(why), "{path} {value}: {code} {text}");
    }
    assert_eq!(plant.last("line/level").unwrap()["v"], 42.5);
    // A dead device: nobody pretends that it was done.
    device.kill();
    let (code, text) = write(&plant, "line/level", "43");
    assert!(code == 1 && !text.contains("done"), "{code} {text}");
    let list = command(&plant, &["list"]);
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.status.success() && text.contains("line/speed") && text.contains("a test"), "{text}");
}

#[test]
fn with_the_agent_gone_a_command_is_never_done_late() {
    let plant = Plant::new(&["a"]);
    plant.write(
        "sim.csv",
        "name,address,type,min,max,writable,path\nset,register(initial=1),f64,0,10,true,line/set\n",
    );
    plant.agent(
        "a",
        "[[edge.devices]]\nname = \"sim\"\ndriver = \"simulated\"\npoll = \"100ms\"\npoints = \"sim.csv\"\n",
    );
    let _hub = plant.start_hub();
    let mut agent = plant.start("a");
    eventually(Duration::from_secs(30), "the first write", || {
        (write(&plant, "line/set", "2").0 == 0).then_some(())
    });
    agent.kill();
    let (code, text) = write(&plant, "line/set", "3");
    assert!(code == 1 && !text.contains("done"), "{code} {text}");
    let _agent = plant.start("a");
    std::thread::sleep(Duration::from_secs(8));
    let value = plant.last("line/set").unwrap()["v"].clone();
    assert!(value != 3, "a command was executed after its expiry: {value}");
}
