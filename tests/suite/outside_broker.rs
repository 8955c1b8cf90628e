//! Plain Debian mosquitto as the plant's broker, our hub as its client: receipts and identity work through it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use forebay_tests::peers::{program, run};
use forebay_tests::plant::Plant;
use forebay_tests::process::{Running, eventually, forebay, free_address};
use runtime::clock::Clock;
use runtime::pki::{Authority, CLIENT_VALIDITY, PrivateKey};

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

/// A broker takes what nobody listens to. Without `primary_host` an agent that never had a receipt believes that a
/// foreign host reads it; the first receipt says otherwise, and what was "handed over" until then is sent again.
#[test]
fn a_hub_that_comes_after_its_agents_gets_everything() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let _broker = mosquitto(address, folder.path());
    let plant = Plant::with_outside_broker(&["a"], address);
    plant.write("sim.csv", "name,address,type,path\nparts,counter(step=1),u32,line/parts\n");
    plant.agent(
        "a",
        "[[edge.devices]]\nname = \"sim\"\ndriver = \"simulated\"\npoll = \"50ms\"\npoints = \"sim.csv\"\n",
    );
    let config = std::fs::read_to_string(plant.dir().join("a.toml")).unwrap();
    plant.write("a.toml", &config.replace("[edge.commands]", "primary_host = false\n[edge.commands]"));
    let mut agent = plant.start("a");
    agent.wait_for_line("sends no receipts", Duration::from_secs(30)); // no receipt for 15 s: taken for a foreign host
    std::thread::sleep(Duration::from_secs(3)); // it writes down how far it came
    agent.terminate();
    agent.wait(Duration::from_secs(20));
    let _agent = plant.start("a");
    std::thread::sleep(Duration::from_secs(8));
    let _hub = plant.start_hub();
    let _bridge = plant.start("bridge");
    let from_the_beginning = || {
        let (code, report) = plant.reconcile();
        assert_eq!(code, 0, "{report:#}");
        let lines = report["lines"].as_array()?;
        let has_its_beginning = |line: &serde_json::Value| {
            let under_way = line["in_flight_agent_to_hub"].as_array();
            line["in_table"].as_u64() > Some(200)
                && under_way.is_some_and(|ranges| ranges.iter().all(|range| range[0].as_u64() > Some(100)))
        };
        (lines.len() == 2 && lines.iter().all(has_its_beginning)).then_some(())
    };
    eventually(Duration::from_secs(60), "what was handed over before the hub came", from_the_beginning);
    plant.settle_some(400);
}

/// A mosquitto as docs/remote-agents.md configures it, with whatever certificates lie in the folder.
fn secured_mosquitto(loopback: SocketAddr, remote: SocketAddr, folder: &Path) -> Running {
    let file = |name: &str| folder.join(name).display().to_string();
    for (user, password, first) in [("hub", "secret of the hub", true), ("a", "secret of a", false)] {
        let mut command = Command::new(program("mosquitto_passwd"));
        command.arg("-b").args(first.then_some("-c")).arg(file("plant.passwords")).args([user, password]);
        run(&mut command);
    }
    let acl = "user hub\ntopic readwrite #\n\nuser a\n\
               topic write spBv1.0/plant/NBIRTH/a\ntopic write spBv1.0/plant/NDATA/a\n\
               topic write spBv1.0/plant/NDEATH/a\ntopic write spBv1.0/plant/DBIRTH/a/#\n\
               topic write spBv1.0/plant/DDATA/a/#\ntopic write spBv1.0/plant/DDEATH/a/#\n\
               topic read spBv1.0/plant/NCMD/a\ntopic read spBv1.0/plant/DCMD/a/#\ntopic read spBv1.0/STATE/#\n";
    std::fs::write(file("plant.acl"), acl).unwrap();
    let tls =
        format!("cafile {}\ncertfile {}\nkeyfile {}\n", file("ca.crt"), file("hub.crt"), file("hub.key"));
    let text = format!(
        "user root\nper_listener_settings false\npassword_file {}\nacl_file {}\nallow_anonymous false\n\
         persistence false\nmax_packet_size 4194304\n\
         listener {} 127.0.0.1\n{tls}listener {} 127.0.0.1\n{tls}require_certificate true\n",
        file("plant.passwords"),
        file("plant.acl"),
        loopback.port(),
        remote.port()
    );
    std::fs::write(file("mosquitto.conf"), text).unwrap();
    let running =
        Running::start(Command::new(program("mosquitto")).args(["-v", "-c", &file("mosquitto.conf")]));
    eventually(Duration::from_secs(10), "mosquitto listens", || std::net::TcpStream::connect(remote).ok());
    running
}

/// Certificates of our making: hub's, CA, and one for the agent.
fn our_certificates(folder: &Path) {
    run(Command::new(forebay()).args(["cert", "init", "--dir"]).arg(folder));
    let authority = Authority::load(&folder.join("ca.crt"), &folder.join("ca.key")).unwrap();
    let key = PrivateKey::make().unwrap();
    let (request, now) = (key.request("a").unwrap(), Clock::machine().now());
    let agent = authority.issue_client("a", &request, now, CLIENT_VALIDITY).unwrap();
    std::fs::write(folder.join("agent.crt"), agent.pem).unwrap();
    std::fs::write(folder.join("agent.key"), key.to_pem()).unwrap();
}

/// Certificates of a company, by openssl: RSA, an intermediate CA.
fn company_certificates(folder: &Path) {
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("ca.ext", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n");
    write("agent.ext", "extendedKeyUsage=clientAuth\n");
    write("end.ext", "subjectAltName=DNS:localhost\n");
    for arguments in [
        "req -x509 -newkey rsa:2048 -nodes -keyout root.key -out ca.crt -subj /CN=Acme-Root -days 3650",
        "req -newkey rsa:2048 -nodes -keyout mid.key -out mid.csr -subj /CN=Acme-Issuing",
        "x509 -req -in mid.csr -CA ca.crt -CAkey root.key -set_serial 7 -days 900 -extfile ca.ext -out mid.crt",
        "req -newkey rsa:2048 -nodes -keyout hub.key -out hub.csr -subj /CN=localhost",
        "x509 -req -in hub.csr -CA mid.crt -CAkey mid.key -set_serial 8 -days 100 -extfile end.ext -out hub.end",
        "req -newkey rsa:2048 -nodes -keyout agent.key -out agent.csr -subj /CN=a",
        "x509 -req -in agent.csr -CA mid.crt -CAkey mid.key -set_serial 9 -days 100 -extfile agent.ext -out agent.end",
    ] {
        run(Command::new("openssl").args(arguments.split(' ')).current_dir(folder));
    }
    for name in ["hub", "agent"] {
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
        write(&format!("{name}.crt"), &(read(&format!("{name}.end")) + &read("mid.crt")));
    }
}

#[test]
fn hub_and_agent_reach_a_secured_mosquitto_with_our_certificates_and_a_companys() {
    for certificates in [our_certificates, company_certificates] {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let (loopback, remote) = (free_address(), free_address());
        let mut broker = secured_mosquitto(loopback, remote, folder.path());
        let plant = Plant::with_outside_broker(&["a"], loopback);
        let file = |name: &str| folder.path().join(name).display().to_string();
        let hub = |password: &str| {
            plant.write("hub.password", password);
            let text = format!(
                "version = 1\nenterprise = \"acme\"\nsite = \"works\"\n[hub]\ndata_dir = \"hub\"\n\
                 [hub.http]\nlisten = \"{}\"\n[hub.broker]\nurl = \"mqtts://localhost:{}\"\nuser = \"hub\"\n\
                 password_file = \"hub.password\"\nca_file = \"{}\"\n",
                plant.http,
                loopback.port(),
                file("ca.crt")
            );
            plant.write("hub.toml", &text);
        };
        plant.write("sim.csv", "name,address,type,path\nparts,counter(step=1),u32,line/parts\n");
        plant.write("a.password", "secret of a");
        let agent = format!(
            "version = 1\nenterprise = \"acme\"\nsite = \"works\"\n[edge]\ngroup = \"plant\"\nnode = \"a\"\n\
             data_dir = \"a\"\nhub = \"mqtts://localhost:{}\"\nca_file = \"{}\"\ncert_file = \"{}\"\n\
             key_file = \"{}\"\nuser = \"a\"\npassword_file = \"a.password\"\n\
             [[edge.devices]]\nname = \"sim\"\ndriver = \"simulated\"\npoll = \"50ms\"\npoints = \"sim.csv\"\n",
            remote.port(),
            file("ca.crt"),
            file("agent.crt"),
            file("agent.key")
        );
        plant.write("a.toml", &agent);
        hub("wrong");
        let refused = plant.start("hub");
        broker.wait_for_line("not authorised", Duration::from_secs(30));
        drop(refused);
        hub("secret of the hub");
        let _hub = plant.start_hub();
        let _bridge = plant.start("bridge");
        let _agent = plant.start("a");
        plant.settle_some(100);
        let agents = plant.try_get("/api/v1/agents").unwrap();
        assert!(agents["agents"][0]["last_receipt"].is_string(), "{agents:#}");
    }
}
