//! What the system tells of a folder is read at once.

use std::time::Instant;

use super::*;

/// How long until `driver` says that there is something, reads it, and has this many values of `a`.
async fn until(plant: &mut Plant, driver: &mut dyn Driver, wanted: &[f64]) -> Duration {
    let began = Instant::now();
    let mut seen = Vec::new();
    while seen.len() < wanted.len() {
        tokio::time::timeout(Duration::from_secs(5), driver.ready())
            .await
            .expect("nobody says that it changed");
        seen.extend(values(&plant.read_on(driver).await.0));
    }
    assert_eq!(seen, wanted);
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_line_is_read_long_before_the_next_poll() {
    let mut plant = Plant::new("");
    plant.append("a.csv", HEADER);
    let mut driver = plant.candidate().driver();
    driver.open(None).await.unwrap();
    plant.read_on(driver.as_mut()).await;
    let mut waits = Vec::new();
    for n in 0..20 {
        tokio::time::sleep(Duration::from_millis(7)).await;
        let name = ["a.csv", "b.csv"][n % 2];
        let header = if n == 1 { HEADER } else { "" };
        plant.append(name, format!("{header}{}", rows(n, 1)));
        waits.push(until(&mut plant, driver.as_mut(), &numbers(n, 1)).await);
    }
    waits.sort();
    eprintln!("line to reading: median {:?}, longest {:?}", waits[10], waits[19]);
    assert!(waits[10] < Duration::from_millis(250), "{waits:?}"); // a loaded machine; 100 ms are usual
    // A file that is renamed into the folder, one in another, and names that are none of ours.
    fs::write(plant.root.path().join("c"), format!("{HEADER}{}", rows(100, 2))).unwrap();
    plant.append("other.txt", "nothing");
    fs::rename(plant.root.path().join("c"), plant.folder().join("c.csv")).unwrap();
    until(&mut plant, driver.as_mut(), &numbers(100, 2)).await;
    // The folder itself is exchanged: the next poll finds that, and watches the new one.
    fs::rename(plant.folder(), plant.root.path().join("away")).unwrap();
    fs::create_dir(plant.folder()).unwrap();
    plant.append("d.csv", format!("{HEADER}{}", rows(200, 1)));
    assert_eq!(values(&plant.read_on(driver.as_mut()).await.0).collect::<Vec<_>>(), numbers(200, 1));
    plant.append("d.csv", rows(201, 1));
    until(&mut plant, driver.as_mut(), &numbers(201, 1)).await;
}

#[tokio::test]
async fn without_a_watch_nothing_is_ready() {
    let mut plant = Plant::new("watch = \"poll\"");
    let mut driver = plant.candidate().driver();
    driver.open(None).await.unwrap();
    plant.append("a.csv", format!("{HEADER}{}", rows(0, 1)));
    assert!(tokio::time::timeout(Duration::from_millis(200), driver.ready()).await.is_err());
    assert_eq!(values(&plant.read_on(driver.as_mut()).await.0).collect::<Vec<_>>(), numbers(0, 1));
}
