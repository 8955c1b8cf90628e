//! The README's first command as a user runs it, ended by time, by signal and by `kill -9` again and again.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use forebay_tests::peers::{repository, run};
use forebay_tests::plant::http_get;
use forebay_tests::process::{Running, eventually, forebay, free_address};

fn demo(dir: &Path, mqtt: SocketAddr, http: SocketAddr, run_for: Option<&str>) -> Running {
    let mut command = Command::new(forebay());
    command.args([
        "demo",
        "--speed",
        "720",
        "--mqtt",
        &mqtt.to_string(),
        "--http",
        &http.to_string(),
        "--dir",
    ]);
    command.arg(dir);
    if let Some(duration) = run_for {
        command.args(["--for", duration]);
    }
    Running::start(&mut command)
}

fn token(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("hub/token")).unwrap_or_default().trim().to_owned()
}

#[test]
fn it_balances_shows_live_values_and_stays_small() {
    let folder = tempfile::tempdir().unwrap();
    let (mqtt, http) = (free_address(), free_address());
    let started = Instant::now();
    let mut demo = demo(folder.path(), mqtt, http, Some("20s"));
    let seen = eventually(Duration::from_secs(60), "live values", || {
        let body = http_get(http, "/api/v1/points?limit=500", &token(folder.path()))?;
        let points: serde_json::Value = serde_json::from_slice(&body).ok()?;
        let live = points["points"].as_array()?.iter().filter(|point| point["last"]["q"] == "good").count();
        (live >= 50).then_some(live)
    });
    println!("{seen} live points after {:?}", started.elapsed());
    let page = http_get(http, "/", "").unwrap();
    assert!(String::from_utf8_lossy(&page).contains("<html"), "the page is served");
    let (memory, _) = demo.memory();
    let status = demo.wait(Duration::from_secs(90));
    let output = demo.output();
    assert!(status.success(), "{status}: {output}");
    assert!(output.contains("balanced:"), "{output}");
    println!("memory {} MB\n{output}", memory / 1_000_000);
    assert!(memory <= 100_000_000, "the whole demo in 100 MB: {memory}");
    its_table_can_be_put_in_order(folder.path());
}

/// By hand, as a person does: seen, compacted, nothing to vacuum yet, and the books balance as before.
fn its_table_can_be_put_in_order(dir: &Path) {
    let lake = dir.join("lake");
    let table = |words: &[&str]| {
        let output =
            Command::new(forebay()).arg("table").args(words).arg(&lake).arg("--json").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{words:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let before = table(&["inspect"]);
    assert!(before["files"].as_u64().unwrap() > 1, "{before}");
    table(&["compact"]);
    let after = table(&["inspect"]);
    assert_eq!((&after["files"], &after["rows"]), (&1.into(), &before["rows"]), "{after}");
    table(&["vacuum", "--dry-run"]);
    let output = Command::new(forebay()).args(["reconcile", "--dir"]).arg(dir).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("balanced:"), "{text}");
}

#[test]
fn it_survives_twenty_kills_at_random_moments() {
    let folder = tempfile::tempdir().unwrap();
    let (mqtt, http) = (free_address(), free_address());
    // A cheap, printed seed: the moments can be tried again.
    let mut seed = u64::from(std::process::id()) ^ 0x5bd1_e995;
    println!("seed {seed}");
    for round in 0..20 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let moment = Duration::from_millis(150 + (seed >> 33) % 3_500);
        let mut running = demo(folder.path(), mqtt, http, None);
        std::thread::sleep(moment);
        running.kill();
        assert!(!running.output().contains("panicked"), "round {round}: {}", running.output());
    }
    let mut last = demo(folder.path(), mqtt, http, Some("10s"));
    let status = last.wait(Duration::from_secs(120));
    let output = last.output();
    assert!(status.success() && output.contains("balanced:"), "{status}: {output}");
    let epochs = output.lines().filter(|line| line.contains("  epoch ")).count();
    assert!(
        epochs > 10,
        "the kills left {epochs} epochs only: they came too early to test anything\n{output}"
    );
    println!("{output}");
}

#[test]
fn a_signal_ends_it_gracefully() {
    let folder = tempfile::tempdir().unwrap();
    let (mqtt, http) = (free_address(), free_address());
    let mut running = demo(folder.path(), mqtt, http, None);
    eventually(Duration::from_secs(60), "health", || http_get(http, "/api/v1/health", ""));
    std::thread::sleep(Duration::from_secs(3));
    running.terminate();
    let status = running.wait(Duration::from_secs(45));
    assert!(status.success(), "{status}: {}", running.output());
}

/// The page in a real browser: live values, trend, agents, balance, login, the broker (tests/web/page.test.mjs).
#[test]
fn the_page_works_in_a_browser() {
    let folder = tempfile::tempdir().unwrap();
    let (mqtt, http) = (free_address(), free_address());
    let _running = demo(folder.path(), mqtt, http, None);
    eventually(Duration::from_secs(60), "live points", || {
        let body = http_get(http, "/api/v1/agents", &token(folder.path()))?;
        String::from_utf8(body).ok().filter(|text| text.contains("\"online\":true"))
    });
    std::thread::sleep(Duration::from_secs(3));
    let mut command = Command::new("node");
    command
        .arg("--test")
        .arg(repository().join("tests/web/page.test.mjs"))
        .env("FOREBAY_URL", format!("http://{http}"))
        .env("FOREBAY_TOKEN", token(folder.path()))
        .env("FOREBAY_MQTT", format!("mqtt://{mqtt}"))
        .env("FOREBAY_ACCESS", folder.path().join("hub/access.toml"));
    run(&mut command);
}
