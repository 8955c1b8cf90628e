//! Makes sure that the folder of the console's files exists, so that a build without them works (console.rs says so).

use std::path::Path;

fn main() {
    let dist = Path::new("../web/dist");
    if let Err(error) = std::fs::create_dir_all(dist) {
        println!("cargo::warning=cannot create {}: {error}", dist.display());
    }
    println!("cargo::rerun-if-changed=../web/dist");
    println!("cargo::rerun-if-changed=build.rs");
}
