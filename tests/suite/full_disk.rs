//! A really full disk under the hub, an agent, and the lake: the state is said before and while it is full, nothing that was
//! acknowledged is missing, live values go on, and everything is taken up again by itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use forebay_tests::plant::{Plant, http_get};
use forebay_tests::process::eventually;

const DEVICE: &str =
    "[[edge.devices]]\nname = \"sim\"\ndriver = \"simulated\"\npoll = \"50ms\"\npoints = \"sim.csv\"\n";
const POINTS: &str = "name,address,type,unit,path\nparts,counter(step=1),u32,,line/parts\n\
    level,\"sine(period=3s, amplitude=5, mean=20)\",f64,%,line/level\n";

/// A small file system of its own, mounted; it is unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, said clearly, where this process may not mount.
    fn mount(at: PathBuf, mib: u64) -> Option<SmallDisk> {
        std::fs::create_dir_all(&at).unwrap();
        let size = format!("size={mib}m,mode=0755");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).output();
        match output {
            Ok(output) if output.status.success() => Some(SmallDisk(at)),
            Ok(output) => {
                eprintln!(
                    "NOT MOUNTED, the bound of the log is used instead: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
                None
            }
            Err(error) => {
                eprintln!("NOT MOUNTED, the bound of the log is used instead: {error}");
                None
            }
        }
    }

    fn free(&self) -> u64 {
        let space = rustix::fs::statvfs(&self.0).unwrap();
        space.f_bavail * space.f_frsize
    }

    /// Takes room until only so much is left.
    fn fill_to(&self, name: &str, left: u64) {
        let mut ballast = self.free().saturating_sub(left);
        let mut bytes = Vec::new();
        while ballast > 0 {
            let part = ballast.min(1 << 20);
            bytes.resize(bytes.len() + usize::try_from(part).unwrap(), 0x55);
            ballast -= part;
        }
        std::fs::write(self.0.join(name), bytes).unwrap();
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.join(name)).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

fn plant() -> Plant {
    let plant = Plant::new(&["a"]);
    plant.write("sim.csv", POINTS);
    plant.agent("a", DEVICE);
    plant
}

fn live(plant: &Plant) -> u64 {
    plant.last("line/parts").and_then(|last| last["v"].as_u64()).unwrap_or(0)
}

fn metric(plant: &Plant, name: &str) -> Option<f64> {
    let text = String::from_utf8(http_get(plant.http, "/metrics", &plant.token())?).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn health(plant: &Plant, wanted: &str) -> Option<String> {
    let health = plant.try_get("/api/v1/health")?.to_string();
    health.contains(wanted).then_some(health)
}

const MIB: u64 = 1 << 20;
/// What the hub leaves to others.
const HUB_RESERVE: u64 = 64 * MIB;

#[test]
fn a_full_disk_under_the_hub() {
    let plant = plant();
    // The hub's own folder moves onto the small disk, with the logins that are in it.
    let (folder, away) = (plant.dir().join("hub"), plant.dir().join("hub-away"));
    std::fs::rename(&folder, &away).unwrap();
    let Some(disk) = SmallDisk::mount(folder.clone(), 160) else {
        println!(
            "the hub's log has no bound that stops it: hub/src/store/tests.rs fills a disk in memory instead"
        );
        return;
    };
    copy(&away, &folder);
    let mut hub = plant.start_hub();
    let _bridge = plant.start("bridge");
    let mut agent = plant.start("a");
    plant.settle_some(60);
    assert!(metric(&plant, "forebay_hub_disk_used_percent").unwrap() < 50.0);

    disk.fill_to("ballast-80", HUB_RESERVE + 17 * MIB); // of 96 MiB that the hub may use
    hub.wait_for_line("fills up", Duration::from_secs(10));
    eventually(Duration::from_secs(10), "a warning", || health(&plant, "disk fills up"));
    assert!(metric(&plant, "forebay_hub_disk_used_percent").unwrap() >= 80.0);
    disk.fill_to("ballast-90", HUB_RESERVE + 6 * MIB);
    hub.wait_for_line("nearly full", Duration::from_secs(10));
    disk.fill_to("ballast-100", HUB_RESERVE - MIB);
    eventually(Duration::from_secs(10), "the hub says that it holds", || health(&plant, "takes nothing"));
    hub.wait_for_line("the hub holds", Duration::from_secs(10));

    // People still see the plant, and agents keep what has no receipt.
    let seen = live(&plant);
    eventually(Duration::from_secs(10), "live values go on", || (live(&plant) > seen + 20).then_some(()));
    // Killed while the disk is full, it comes up and says the same.
    hub.kill();
    agent.kill();
    let mut hub = plant.start_hub();
    let _agent = plant.start("a");
    eventually(Duration::from_secs(20), "it holds again", || health(&plant, "takes nothing"));
    hub.wait_for_line("the hub holds", Duration::from_secs(10));

    ["ballast-80", "ballast-90", "ballast-100"].iter().for_each(|name| disk.remove(name));
    let room = Instant::now();
    eventually(Duration::from_secs(20), "it goes on by itself", || {
        health(&plant, "takes nothing").is_none().then_some(())
    });
    println!("the hub went on {} ms after there was room", room.elapsed().as_millis());
    let (_, report) = plant.reconcile();
    let before = forebay_tests::plant::in_table(&report);
    plant.settle_some(before + 100); // every step of it checks that nothing is missing or double
}

#[test]
fn a_full_disk_under_an_agent() {
    let plant = plant();
    let disk = SmallDisk::mount(plant.dir().join("a"), 128);
    let Some(disk) = disk else {
        return bound_of_an_agent(&plant);
    };
    let mut hub = plant.start_hub();
    let _bridge = plant.start("bridge");
    let mut agent = plant.start("a");
    plant.settle_some(60);
    disk.fill_to("ballast-80", (16 + 20) * MIB); // 16 MiB are not the agent's
    agent.wait_for_line("the outbox fills up", Duration::from_secs(10));
    disk.fill_to("ballast-90", (16 + 9) * MIB);
    agent.wait_for_line("the outbox is nearly full", Duration::from_secs(10));
    eventually(Duration::from_secs(10), "the hub's API tells of it", || {
        let agents = plant.try_get("/api/v1/agents")?;
        agents["agents"][0]["outbox_used"].as_u64().filter(|used| *used >= 90)
    });
    hub.kill(); // what is read now has to wait
    disk.fill_to("ballast-100", 15 * MIB);
    agent.wait_for_line("full", Duration::from_secs(20));
    std::thread::sleep(Duration::from_secs(3));
    agent.kill(); // and comes up on the full disk
    let mut agent = plant.start("a");
    agent.wait_for_line("outbox opened", Duration::from_secs(20));
    let _hub = plant.start_hub();
    ["ballast-80", "ballast-90", "ballast-100"].iter().for_each(|name| disk.remove(name));
    let room = Instant::now();
    let (_, report) = plant.reconcile();
    let before = forebay_tests::plant::in_table(&report);
    eventually(Duration::from_secs(30), "live values", || {
        plant.last("line/parts").filter(|last| last["q"] == "good")
    });
    println!(
        "live values {} ms after there was room (hub and agent started meanwhile)",
        room.elapsed().as_millis()
    );
    plant.settle_some(before + 100);
}

#[test]
fn a_full_disk_under_the_lake() {
    let plant = plant();
    let Some(disk) = SmallDisk::mount(plant.dir().join("lake"), 32) else {
        println!("a lake that takes nothing is simulated: cargo test -p bridge --test suite lake");
        return;
    };
    let _hub = plant.start_hub();
    let mut bridge = plant.start("bridge");
    let _agent = plant.start("a");
    plant.settle_some(60);
    let told = |words: &str| {
        let sinks = plant.try_get("/api/v1/reconcile")?["sinks"].clone();
        sinks[0]["alarm"].as_str().filter(|alarm| alarm.contains(words)).map(str::to_owned)
    };
    disk.fill_to("ballast-80", 5 * MIB);
    bridge.wait_for_line("fills up", Duration::from_secs(15));
    eventually(Duration::from_secs(20), "a warning", || told("fills up"));
    disk.fill_to("ballast-90", 2 * MIB);
    bridge.wait_for_line("nearly full", Duration::from_secs(15));
    disk.fill_to("ballast-100", 0);
    let full = Instant::now();
    eventually(Duration::from_secs(45), "an alarm", || told("No space left on device"));
    println!("alarm {:.1} s after the lake's disk was full", full.elapsed().as_secs_f64());
    let seen = live(&plant);
    eventually(Duration::from_secs(10), "live values go on", || (live(&plant) > seen + 20).then_some(()));
    bridge.kill(); // and comes up on the full disk
    let _bridge = plant.start("bridge");
    std::thread::sleep(Duration::from_secs(4));
    let (_, report) = plant.reconcile();
    let before = forebay_tests::plant::in_table(&report);
    ["ballast-80", "ballast-90", "ballast-100"].iter().for_each(|name| disk.remove(name));
    let room = Instant::now();
    eventually(Duration::from_secs(20), "rows again", || {
        (forebay_tests::plant::in_table(&plant.reconcile().1) > before).then_some(())
    });
    println!("rows again {:.1} s after there was room", room.elapsed().as_secs_f64());
    plant.settle_some(before + 200); // every step of it checks that nothing is missing or double
}

/// Without a file system of its own: the outbox's bound, with large values.
fn bound_of_an_agent(plant: &Plant) {
    let text = std::fs::read_to_string(plant.dir().join("a.toml")).unwrap();
    let text = text.replace("[edge.commands]", "[edge.outbox]\nmax_size = \"16MiB\"\n[edge.commands]");
    plant.write("a.toml", &text);
    let agent = plant.start("a");
    std::thread::sleep(Duration::from_secs(5));
    assert!(!agent.output().contains("panicked"), "{}", agent.output());
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
