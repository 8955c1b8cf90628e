//! Register maps that this program brings: `profile = "NAME"` instead of a point list of one's own.
//!
//! Each is a point list like any other (`edge-agent/profiles/NAME.csv`), written from the public register map that it cites in
//! its first lines. `forebay probe profile NAME` prints one to be changed and used with `points`.

const PROFILES: &[(&str, &str)] = &[
    ("carlo-gavazzi-em24", include_str!("../profiles/carlo-gavazzi-em24.csv")),
    ("eastron-sdm630", include_str!("../profiles/eastron-sdm630.csv")),
    ("janitza", include_str!("../profiles/janitza.csv")),
    ("janitza-umg604", include_str!("../profiles/janitza-umg604.csv")),
    ("schneider-iem3x55", include_str!("../profiles/schneider-iem3x55.csv")),
    ("sunspec-common", include_str!("../profiles/sunspec-common.csv")),
    ("sunspec-inverter", include_str!("../profiles/sunspec-inverter.csv")),
    ("sunspec-inverter-float", include_str!("../profiles/sunspec-inverter-float.csv")),
    ("sunspec-meter", include_str!("../profiles/sunspec-meter.csv")),
];

/// The list of that name.
#[must_use]
pub fn list(name: &str) -> Option<&'static str> {
    PROFILES.iter().find(|(known, _)| *known == name).map(|(_, list)| *list)
}

/// All names.
#[must_use]
pub fn names() -> Vec<&'static str> {
    PROFILES.iter().map(|(name, _)| *name).collect()
}
