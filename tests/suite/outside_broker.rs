//! Plain Debian mosquitto as the plant's broker, our hub as its client: receipts and identity work through it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use forebay_tests::peers::program;
use forebay_tests::plant::Plant;
use forebay_tests::process::{Running, eventually, free_address};

fn mosquitto(address: SocketAddr, folder: &Path) -> Running {
    let config = folder.join("mosquitto.conf");
    let text =
        format!("listener {} {}\nallow_anonymous true\npersistence false\n", address.port(), address.ip());
    std::fs::write(&config, text).unwrap();
    let running = Running::start(Command::new(program("mosquitto")).arg("-c").arg(&config));
    eventually(Duration::from_secs(10), "mosquitto listens", || std::net::TcpStream::connect(address).ok());
    running
}

#[test]
fn receipts_work_through_mosquitto_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut broker = mosquitto(address, folder.path());
    let plant = Plant::with_outside_broker(&["a"], address);
    plant.write("sim.csv", "name,address,type,path\nparts,counter(step=1),u32,line/parts\n");
    plant.agent(
        "a",
        "[[edge.devices]]\nname = \"sim\"\ndriver = \"simulated\"\npoll = \"50ms\"\npoints = \"sim.csv\"\n",
    );
    let _hub = plant.start_hub();
    let _bridge = plant.start("bridge");
    let _agent = plant.start("a");
    plant.settle_some(100);
    let received = || {
        let agents = plant.try_get("/api/v1/agents")?;
        agents["agents"][0]["last_receipt"].as_str().map(str::to_owned)
    };
    let first = eventually(Duration::from_secs(10), "a receipt", received);
    for _ in 0..3 {
        broker.kill();
        std::thread::sleep(Duration::from_secs(3));
        broker = mosquitto(address, folder.path());
        std::thread::sleep(Duration::from_secs(3));
    }
    eventually(Duration::from_secs(30), "receipts again", || received().filter(|now| *now != first));
    plant.settle_some(300);
}
