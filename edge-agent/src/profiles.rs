//! Register maps that this program brings: `profile = "NAME"` instead of a point list of one's own.
//!
//! Each is a point list like any other (`edge-agent/profiles/NAME.csv`), written from the public register map that it cites in
//! its first lines. `forebay probe profile NAME` prints one to be changed and used with `points`.

const PROFILES: &[(&str, &str)] = &[];

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
