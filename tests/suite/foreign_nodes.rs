//! Sparkplug edge nodes that are not ours publish to our hub; their values are rows too, each once.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use forebay_tests::peers::{program, python, script};
use forebay_tests::plant::Plant;
use forebay_tests::process::eventually;

#[test]
fn pysparkplug_with_every_type_and_odd_names() {
    let plant = Plant::new(&["py"]);
    let _hub = plant.start_hub();
    let _bridge = plant.start("bridge");
    let mut node = Command::new(python())
        .arg(script("sparkplug_node.py"))
        .args([&plant.mqtt.ip().to_string(), &plant.mqtt.port().to_string(), "py", "secret of py", "50"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let point = |metric: &str| plant.last(&format!("plant/py/press/{metric}"));
    eventually(Duration::from_secs(30), "the last update", || {
        point("counter").filter(|last| last["v"] == 50)
    });
    assert_eq!(point("%C3%96lpumpe/Druck").unwrap()["v"], 50.0 / 8.0);
    assert_eq!(point("odd+name%231").unwrap()["v"], 0.5);
    assert_eq!(point("long").unwrap()["v"].as_str().unwrap().len(), 65_536);
    assert!(point("nan").unwrap()["v"].is_null() && point("nan").unwrap()["special"] == "NaN");
    assert_eq!(point("inf").unwrap()["special"], "-Infinity");
    assert_eq!(point("int8").unwrap()["v"], -8);
    assert_eq!(point("int64").unwrap()["v"].to_string().trim_matches('"'), (-(1_i64 << 40)).to_string());
    assert_eq!(point("uint64").unwrap()["v"].to_string().trim_matches('"'), ((1_u64 << 63) + 1).to_string());
    assert_eq!(point("bytes").unwrap()["v"], "AP8=");
    // 50 updates of 15 metrics, and the birth's values once.
    let report = plant.settle(50 * 15);
    assert!(report["balances"] == true, "{report:#}");
    node.stdin.take().unwrap().flush().unwrap();
    node.kill().unwrap();
    node.wait().unwrap();
    eventually(Duration::from_secs(90), "the node is dead", || {
        let agents = plant.try_get("/api/v1/agents")?;
        (agents["agents"][0]["online"] == false).then_some(())
    });
}

#[test]
fn npm_sparkplug_client() {
    let plant = Plant::new(&["js"]);
    let _hub = plant.start_hub();
    let _bridge = plant.start("bridge");
    let mut node = Command::new("node")
        .arg(script("sparkplug_node.mjs"))
        .args([&format!("tcp://{}", plant.mqtt), "js", "secret of js", "40"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    eventually(Duration::from_secs(30), "the last update", || {
        plant.last("plant/js/mixer/count").filter(|last| last["v"] == 40)
    });
    assert_eq!(plant.last("plant/js/mixer/level").unwrap()["v"], 10.0);
    assert_eq!(plant.last("plant/js/mixer/state").unwrap()["v"], "steht");
    plant.settle(40 * 3);
    node.kill().unwrap();
    node.wait().unwrap();
}

/// Garbage from a client that may publish as its node: counted, quarantined, and nothing else is disturbed.
#[test]
fn hostile_payloads_disturb_nobody() {
    let plant = Plant::new(&["a", "evil"]);
    plant.write("sim.csv", "name,address,type,path\nparts,counter(step=1),u32,line/parts\n");
    plant.agent(
        "a",
        "[[edge.devices]]\nname = \"sim\"\ndriver = \"simulated\"\npoll = \"100ms\"\npoints = \"sim.csv\"\n",
    );
    let hub = plant.start_hub();
    let _bridge = plant.start("bridge");
    let _agent = plant.start("a");
    eventually(Duration::from_secs(30), "live", || plant.last("line/parts"));
    let publish = |topic: &str, payload: &[u8]| {
        let mut child = Command::new(program("mosquitto_pub"))
            .args(["-h", &plant.mqtt.ip().to_string(), "-p", &plant.mqtt.port().to_string()])
            .args(["-u", "evil", "-P", "secret of evil", "-t", topic, "-s"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(payload).unwrap();
        child.wait().unwrap();
    };
    let huge_length = [0x12, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3];
    let deep: Vec<u8> = std::iter::repeat_n([0x92_u8, 0x01, 0x7f], 2000).flatten().collect();
    for (kind, payload) in [
        ("NDATA", &b"\xff\xff\xff\xff"[..]),
        ("NBIRTH", b""),
        ("NBIRTH", &huge_length),
        ("DBIRTH", &deep),
        ("NDATA", b"\x08\x01\x12\x02\x08"),
        ("DDATA", &[0_u8; 100_000]),
        ("NDEATH", b"{}"),
    ] {
        let device = if kind.starts_with('D') { "/press" } else { "" };
        publish(&format!("spBv1.0/plant/{kind}/evil{device}"), payload);
    }
    // Nor may it speak for another node, or command one.
    publish("spBv1.0/plant/NDEATH/a", b"");
    publish("spBv1.0/plant/NCMD/a", b"\x12\x00");
    let before = plant.last("line/parts").unwrap()["v"].as_u64().unwrap();
    eventually(Duration::from_secs(10), "values go on", || {
        plant.last("line/parts").filter(|last| last["v"].as_u64() > Some(before + 20))
    });
    let metrics = forebay_tests::plant::http_get(plant.http, "/metrics", &plant.token()).unwrap();
    let metrics = String::from_utf8(metrics).unwrap();
    let counted: f64 = metrics
        .lines()
        .filter(|line| line.contains("quarantin") || line.contains("undecodable") || line.contains("refused"))
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert!(counted >= 4.0, "hostile payloads are counted:\n{metrics}");
    assert!(!hub.output().contains("panicked"), "{}", hub.output());
    plant.settle_some(20);
}

/// What we send is read by a reader that is not ours (pysparkplug decodes births and data from the broker).
#[test]
fn pysparkplug_reads_our_agent() {
    let plant = Plant::new(&["a"]);
    plant.write("sim.csv", "name,address,type,unit,path\nlevel,\"sine(period=2s)\",f32,m,line/level\n");
    plant.agent(
        "a",
        "[[edge.devices]]\nname = \"sim\"\ndriver = \"simulated\"\npoll = \"100ms\"\npoints = \"sim.csv\"\n",
    );
    let _hub = plant.start_hub();
    let mut reader = Command::new(python());
    reader
        .arg(script("sparkplug_reader.py"))
        .args([&plant.mqtt.ip().to_string(), &plant.mqtt.port().to_string(), "plant", "a", "sim", "20"])
        .stdout(Stdio::piped());
    let reader = reader.spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let _agent = plant.start("a");
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
