//! What commands print, and how they end.

use std::process::ExitCode;

/// Done as asked.
pub const DONE: u8 = 0;
/// Failed, or the figures do not agree.
pub const FAILED: u8 = 1;
/// The arguments or the configuration are wrong.
pub const USAGE: u8 = 2;

/// Prints a line for a person or a script on standard output; a closed pipe ends the process quietly.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => { $crate::output::line(&format!($($argument)*)) };
}

/// Prints a complaint on standard error.
#[macro_export]
macro_rules! complain {
    ($($argument:tt)*) => { $crate::output::error_line(&format!($($argument)*)) };
}

/// See [`say!`].
pub fn line(text: &str) {
    use std::io::Write as _;
    if writeln!(std::io::stdout().lock(), "{text}").is_err() {
        std::process::exit(i32::from(FAILED)); // nobody reads any more
    }
}

/// See [`complain!`].
pub fn error_line(text: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr().lock(), "{text}").ok();
}

/// The code as the standard library wants it.
#[must_use]
pub fn exit_code(code: u8) -> ExitCode {
    ExitCode::from(code)
}

/// `12 345 678`: digits in groups, for people.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            text.push('\u{202f}'); // a narrow space that does not break
        }
        text.push(digit);
    }
    text
}

/// `1.5 MB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        10_000..=999_999 => format!("{:.0} kB", bytes as f64 / 1e3),
        1_000_000..=999_999_999 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_for_people() {
        assert_eq!(super::grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(super::grouped(12), "12");
        assert_eq!(super::size(2_500_000), "2.5 MB");
    }
}
