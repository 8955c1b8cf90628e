//! `forebay probe`: a range of Modbus registers as everything that it could be; the register maps that this program brings.

use edge_agent::probe::{Cell, Probe, characters, read, readings};
use edge_agent::profiles;

use crate::arguments::{ProbeModbus, ProbeWhat};
use crate::output::{DONE, FAILED, USAGE};
use crate::{complain, say};

/// Exit 0 if something was read.
#[must_use]
pub fn run(options: &crate::arguments::Probe) -> u8 {
    match &options.what {
        ProbeWhat::Modbus(options) => modbus(options),
        ProbeWhat::Profile { name: None } => {
            profiles::names().iter().for_each(|name| say!("{name}"));
            DONE
        }
        ProbeWhat::Profile { name: Some(name) } => match profiles::list(name) {
            Some(list) => {
                list.lines().for_each(|line| say!("{line}"));
                DONE
            }
            None => {
                complain!("there is no profile {name}; known: {}", profiles::names().join(", "));
                USAGE
            }
        },
    }
}

fn modbus(options: &ProbeModbus) -> u8 {
    let probe = Probe {
        address: options.host.clone(),
        framing: options.framing.clone(),
        unit: options.unit,
        table: options.table.clone(),
        from: options.from,
        count: options.count,
        timeout: options.timeout,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain!("{error}");
            return FAILED;
        }
    };
    match runtime.block_on(read(&probe)) {
        Ok((cells, stopped)) => {
            show(&cells, options);
            if let Some(why) = &stopped {
                complain!("stopped {why}");
            }
            let has_value = cells.iter().any(|(_, value)| value.is_ok());
            if has_value && stopped.is_none() { DONE } else { FAILED }
        }
        Err(error) => {
            complain!("{}: {error}", options.host);
            FAILED
        }
    }
}

fn show(cells: &[Cell], options: &ProbeModbus) {
    let is_bits = matches!(options.table.as_str(), "co" | "di");
    for (nth, (address, value)) in cells.iter().enumerate() {
        // What follows without a hole can be part of a longer number.
        let registers: Vec<u16> =
            cells.iter().skip(nth).take(4).map_while(|(_, value)| value.as_ref().ok().copied()).collect();
        let seen = if is_bits { Vec::new() } else { readings(&registers) };
        let text = value.as_ref().ok().copied().filter(|_| !is_bits).and_then(characters);
        if options.json {
            let forms: serde_json::Map<_, _> =
                seen.into_iter().map(|(name, text)| (name, serde_json::Value::String(text))).collect();
            let (cell, error) = (value.as_ref().ok(), value.as_ref().err());
            say!(
                "{}",
                serde_json::json!({ "address": format!("{}:{address}", options.table), "value": cell, "error": error,
                    "text": text, "forms": forms })
            );
            continue;
        }
        match value {
            Ok(value) if is_bits => say!("{}:{address:<5} {value}", options.table),
            Ok(value) => {
                let forms: Vec<String> = seen.iter().map(|(name, text)| format!("{name} {text}")).collect();
                let text = text.map_or("    ".to_owned(), |text| format!("{text:?}"));
                say!("{}:{address:<5} 0x{value:04x} {text} {}", options.table, forms.join("  "));
            }
            Err(why) => say!("{}:{address:<5} {why}", options.table),
        }
    }
}
