//! The HTTP API's own document, judged by a validator that is not ours.

use std::process::Command;

use forebay_tests::peers::{python, run};
use forebay_tests::plant::Plant;

#[test]
fn the_document_is_valid_openapi() {
    let plant = Plant::new(&[]);
    let _hub = plant.start_hub();
    let document = plant.try_get("/api/v1/openapi.json").expect("the document");
    assert_eq!(document["info"]["title"], "Forebay hub");
    let file = plant.dir().join("openapi.json");
    std::fs::write(&file, document.to_string()).unwrap();
    run(Command::new(python()).args(["-m", "openapi_spec_validator"]).arg(&file));
}
