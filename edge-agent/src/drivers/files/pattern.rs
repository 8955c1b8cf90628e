//! Patterns of file names.

/// A pattern of file names: `*` is any text, `?` any character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(pub(super) String);

impl Pattern {
    /// A pattern for this name, and for others where it holds `*` or `?`.
    pub(super) fn exactly(name: &str) -> Pattern {
        Pattern(name.to_owned())
    }

    /// Whether the whole name fits.
    pub(super) fn matches(&self, name: &str) -> bool {
        let pattern = self.0.as_str();
        let (mut p, mut n) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while let Some(c) = name.get(n..).and_then(|rest| rest.chars().next()) {
            match pattern.get(p..).and_then(|rest| rest.chars().next()) {
                Some('*') => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(wanted) if wanted == '?' || wanted == c => {
                    (p, n) = (p + wanted.len_utf8(), n + c.len_utf8());
                }
                _ => match star {
                    Some((at, from)) => {
                        let from = from
                            + name.get(from..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8);
                        star = Some((at, from));
                        (p, n) = (at + 1, from);
                    }
                    None => return false,
                },
            }
        }
        pattern.get(p..).unwrap_or("").chars().all(|c| c == '*')
    }
}
