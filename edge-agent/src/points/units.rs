//! Units: UCUM texts as plants write them, and what people write instead. Pure.
//!
//! ```text
//! unit      = ["/"] term
//! term      = component { ("." | "/") component }
//! component = "(" term ")" | number | "{note}" | simple ["{note}"]
//! simple    = [prefix] symbol [["+" | "-"] digits]
//! ```
//!
//! The symbols are those of UCUM (ucum.org, table "Unit symbols") that occur in plants, laboratories and buildings, and
//! `var`, which UCUM lacks and everybody writes.

/// Nesting that no unit needs.
const DEPTH_MAX: usize = 8;

const PREFIXES: [&str; 24] = [
    "Y", "Z", "E", "P", "T", "G", "M", "k", "h", "da", "d", "c", "m", "u", "n", "p", "f", "a", "z", "y",
    "Ki", "Mi", "Gi", "Ti",
];

/// Symbols that take prefixes.
const METRIC: &[&str] = &[
    "m", "g", "s", "rad", "K", "C", "cd", "mol", "sr", "Hz", "N", "Pa", "J", "W", "A", "V", "F", "Ohm", "S",
    "Wb", "Cel", "T", "H", "lm", "lx", "Bq", "Gy", "Sv", "l", "L", "ar", "t", "bar", "u", "eV", "pc", "cal",
    "cal_th", "cal_IT", "Np", "B", "B[V]", "B[mV]", "B[uV]", "B[W]", "B[kW]", "B[SPL]", "kat", "U", "eq",
    "osm", "g%", "bit", "By", "Bd", "P", "St", "Gal", "Mx", "G", "Oe", "dyn", "erg", "gf", "m[H2O]", "m[Hg]",
    "tex", "var", "Ci", "[iU]", "[IU]",
];

/// Symbols that take none.
const PLAIN: &[&str] = &[
    "10*",
    "10^",
    "%",
    "[ppth]",
    "[ppm]",
    "[ppb]",
    "[pptr]",
    "[pi]",
    "deg",
    "'",
    "''",
    "gon",
    "min",
    "h",
    "d",
    "wk",
    "mo",
    "a",
    "atm",
    "att",
    "[g]",
    "[pH]",
    "[psi]",
    "[lbf_av]",
    "[lb_av]",
    "[oz_av]",
    "[gr]",
    "[ston_av]",
    "[lton_av]",
    "[slug]",
    "[in_i]",
    "[ft_i]",
    "[yd_i]",
    "[mi_i]",
    "[nmi_i]",
    "[mil_i]",
    "[kn_i]",
    "[hd_i]",
    "[fth_i]",
    "[sin_i]",
    "[sft_i]",
    "[syd_i]",
    "[cin_i]",
    "[cft_i]",
    "[cyd_i]",
    "[cr_i]",
    "[acr_us]",
    "[ft_us]",
    "[mi_us]",
    "[gal_us]",
    "[qt_us]",
    "[pt_us]",
    "[foz_us]",
    "[bbl_us]",
    "[bu_us]",
    "[gal_br]",
    "[qt_br]",
    "[pt_br]",
    "[foz_br]",
    "[degF]",
    "[degR]",
    "[degRe]",
    "[Btu]",
    "[Btu_IT]",
    "[Btu_th]",
    "[HP]",
    "[in_i'H2O]",
    "[in_i'Hg]",
    "[car_m]",
    "[c]",
    "[S]",
    "circ",
    "sph",
    "bit_s",
    "[ppi]",
    "[APL'U]",
    "[Cal]",
    "[cup_us]",
    "[tbs_us]",
    "[tsp_us]",
    "[EID_10]",
    "[CFU]",
];

/// UCUM for those who know it (femtotonnes, petasiemens), and something else for everybody else.
const MISREAD: [&str; 2] = ["ft", "PS"];

/// What people write, in lower case and without spaces, and the UCUM text.
const WRITTEN: &[(&str, &str)] = &[
    ("°c", "Cel"),
    ("℃", "Cel"),
    ("degc", "Cel"),
    ("celsius", "Cel"),
    ("deg.c", "Cel"),
    ("gradc", "Cel"),
    ("°f", "[degF]"),
    ("℉", "[degF]"),
    ("degf", "[degF]"),
    ("fahrenheit", "[degF]"),
    ("degk", "K"),
    ("kelvin", "K"),
    ("°k", "K"),
    ("°", "deg"),
    ("degree", "deg"),
    ("degrees", "deg"),
    ("µm", "um"),
    ("μm", "um"),
    ("micron", "um"),
    ("microns", "um"),
    ("µs", "us"),
    ("μs", "us"),
    ("µa", "uA"),
    ("μa", "uA"),
    ("m²", "m2"),
    ("m^2", "m2"),
    ("sqm", "m2"),
    ("m³", "m3"),
    ("m^3", "m3"),
    ("cbm", "m3"),
    ("cm²", "cm2"),
    ("cm³", "cm3"),
    ("m³/h", "m3/h"),
    ("m^3/h", "m3/h"),
    ("m3h", "m3/h"),
    ("cbm/h", "m3/h"),
    ("cmh", "m3/h"),
    ("m³/s", "m3/s"),
    ("nm³/h", "m3/h{norm}"),
    ("nm3/h", "m3/h{norm}"),
    ("m³/min", "m3/min"),
    ("kg/m³", "kg/m3"),
    ("g/cm³", "g/cm3"),
    ("m/s²", "m/s2"),
    ("m/s^2", "m/s2"),
    ("w/m²", "W/m2"),
    ("n/mm²", "N/mm2"),
    ("kwh", "kW.h"),
    ("wh", "W.h"),
    ("mwh", "MW.h"),
    ("gwh", "GW.h"),
    ("varh", "var.h"),
    ("kvarh", "kvar.h"),
    ("mvarh", "Mvar.h"),
    ("va", "V.A"),
    ("kva", "kV.A"),
    ("mva", "MV.A"),
    ("vah", "V.A.h"),
    ("kvah", "kV.A.h"),
    ("mvar", "Mvar"),
    ("ah", "A.h"),
    ("mah", "mA.h"),
    ("nm", "N.m"),
    ("knm", "kN.m"),
    ("as", "A.s"),
    ("rpm", "{rev}/min"),
    ("r/min", "{rev}/min"),
    ("rev/min", "{rev}/min"),
    ("rps", "{rev}/s"),
    ("lpm", "L/min"),
    ("slpm", "L/min{norm}"),
    ("lph", "L/h"),
    ("lps", "L/s"),
    ("gpm", "[gal_us]/min"),
    ("cfm", "[cft_i]/min"),
    ("ltr", "L"),
    ("liter", "L"),
    ("litre", "L"),
    ("liters", "L"),
    ("ppm", "[ppm]"),
    ("ppb", "[ppb]"),
    ("ph", "[pH]"),
    ("psi", "[psi]"),
    ("psig", "[psi]{gauge}"),
    ("psia", "[psi]{absolute}"),
    ("barg", "bar{gauge}"),
    ("bara", "bar{absolute}"),
    ("bar(g)", "bar{gauge}"),
    ("bar(a)", "bar{absolute}"),
    ("mbarg", "mbar{gauge}"),
    ("mbara", "mbar{absolute}"),
    ("mmhg", "mm[Hg]"),
    ("mmh2o", "mm[H2O]"),
    ("mmwc", "mm[H2O]"),
    ("inhg", "[in_i'Hg]"),
    ("inh2o", "[in_i'H2O]"),
    ("inwc", "[in_i'H2O]"),
    ("torr", "mm[Hg]"),
    ("inch", "[in_i]"),
    ("in", "[in_i]"),
    ("\"", "[in_i]"),
    ("ft", "[ft_i]"),
    ("ps", "[HP]"),
    ("feet", "[ft_i]"),
    ("mile", "[mi_i]"),
    ("mi", "[mi_i]"),
    ("yd", "[yd_i]"),
    ("lb", "[lb_av]"),
    ("lbs", "[lb_av]"),
    ("oz", "[oz_av]"),
    ("lbf", "[lbf_av]"),
    ("gal", "[gal_us]"),
    ("bbl", "[bbl_us]"),
    ("hp", "[HP]"),
    ("btu", "[Btu_IT]"),
    ("mph", "[mi_i]/h"),
    ("kmh", "km/h"),
    ("kph", "km/h"),
    ("km/hr", "km/h"),
    ("kt", "[kn_i]"),
    ("knots", "[kn_i]"),
    ("sec", "s"),
    ("secs", "s"),
    ("seconds", "s"),
    ("msec", "ms"),
    ("minute", "min"),
    ("minutes", "min"),
    ("mins", "min"),
    ("hour", "h"),
    ("hours", "h"),
    ("hr", "h"),
    ("hrs", "h"),
    ("std", "h"),
    ("day", "d"),
    ("days", "d"),
    ("week", "wk"),
    ("year", "a"),
    ("month", "mo"),
    ("ohm", "Ohm"),
    ("ohms", "Ohm"),
    ("Ω", "Ohm"),
    ("ω", "Ohm"),
    ("kω", "kOhm"),
    ("volt", "V"),
    ("volts", "V"),
    ("vdc", "V{DC}"),
    ("vac", "V{AC}"),
    ("amp", "A"),
    ("amps", "A"),
    ("ampere", "A"),
    ("watt", "W"),
    ("watts", "W"),
    ("hertz", "Hz"),
    ("kgs", "kg"),
    ("ton", "t"),
    ("tons", "t"),
    ("tonne", "t"),
    ("tph", "t/h"),
    ("kgh", "kg/h"),
    ("kg/hr", "kg/h"),
    ("percent", "%"),
    ("pct", "%"),
    ("%rh", "%{RH}"),
    ("rh%", "%{RH}"),
    ("%rf", "%{RH}"),
    ("rh", "%{RH}"),
    ("pcs", "{pieces}"),
    ("pieces", "{pieces}"),
    ("stk", "{pieces}"),
    ("st", "{pieces}"),
    ("stück", "{pieces}"),
    ("count", "{count}"),
    ("counts", "{count}"),
    ("ntu", "{NTU}"),
    ("µs/cm", "uS/cm"),
    ("μs/cm", "uS/cm"),
    ("mg/m³", "mg/m3"),
    ("byte", "By"),
    ("bytes", "By"),
    ("dba", "dB{A}"),
    ("db(a)", "dB{A}"),
    ("lux", "lx"),
    ("g's", "[g]"),
    ("cosphi", "1"),
    ("kpa(g)", "kPa{gauge}"),
    ("kpag", "kPa{gauge}"),
    ("kpaa", "kPa{absolute}"),
    ("l/std", "L/h"),
    ("l/hr", "L/h"),
    ("l/sec", "L/s"),
];

/// Whether it is UCUM; empty: no unit.
#[must_use]
pub fn is_known(unit: &str) -> bool {
    let inner = unit.strip_prefix('/').unwrap_or(unit);
    unit.is_empty() || !MISREAD.contains(&inner) && term(inner, 0).is_some_and(str::is_empty)
}

/// The UCUM text of what somebody wrote: itself, if it is one.
#[must_use]
pub fn ucum(written: &str) -> Option<String> {
    let written = written.trim();
    if is_known(written) {
        return Some(written.to_owned());
    }
    let squeezed: String = written.chars().filter(|c| !c.is_whitespace()).collect();
    if is_known(&squeezed) {
        return Some(squeezed);
    }
    let lower = squeezed.to_lowercase();
    let by_name = WRITTEN.iter().find(|(name, _)| *name == lower).map(|(_, unit)| (*unit).to_owned());
    by_name.or_else(|| by_case(&squeezed))
}

/// What may have been meant by a text that is no UCUM.
#[must_use]
pub fn suggestion(unit: &str) -> Option<String> {
    ucum(unit).or_else(|| {
        let near = COMMON.iter().map(|known| (distance(unit, known), *known));
        let (far, known) = near.min()?;
        (far <= 1 && unit.len() > 2 || far <= 2 && unit.len() > 5).then(|| known.to_owned())
    })
}

/// Units that a slip of one letter is compared with.
const COMMON: &[&str] = &[
    "Cel",
    "[degF]",
    "K",
    "bar",
    "mbar",
    "Pa",
    "hPa",
    "kPa",
    "MPa",
    "[psi]",
    "mm",
    "cm",
    "um",
    "km",
    "m/s",
    "mm/s",
    "m2",
    "m3",
    "m3/h",
    "L/min",
    "L/h",
    "L/s",
    "kg",
    "kg/h",
    "t/h",
    "kg/m3",
    "kW",
    "MW",
    "kW.h",
    "MW.h",
    "W.h",
    "kV",
    "mV",
    "mA",
    "kV.A",
    "kvar",
    "var",
    "V.A",
    "kvar.h",
    "Hz",
    "kHz",
    "N.m",
    "kN",
    "min",
    "Ohm",
    "kOhm",
    "uS/cm",
    "mS/cm",
    "mg/L",
    "[ppm]",
    "[pH]",
    "{rev}/min",
    "dB",
    "lx",
    "deg",
    "rad",
    "mol",
];

/// The only spelling of it, letters in other case, that is UCUM: `KW` is kW, `BAR` is bar, and `MW` stays megawatt.
fn by_case(text: &str) -> Option<String> {
    let found = COMMON.iter().filter(|known| known.eq_ignore_ascii_case(text));
    found.copied().next().map(str::to_owned)
}

/// Reads a term off the front; what is left is empty, or begins with `)`.
fn term(text: &str, depth: usize) -> Option<&str> {
    let mut rest = component(text, depth)?;
    while let Some(next) = rest.strip_prefix(['.', '/']) {
        rest = component(next, depth)?;
    }
    Some(rest)
}

fn component(text: &str, depth: usize) -> Option<&str> {
    if let Some(inner) = text.strip_prefix('(') {
        let rest = if depth < DEPTH_MAX { term(inner, depth + 1)? } else { return None };
        return Some(exponent(rest.strip_prefix(')')?));
    }
    let end = end_of_symbol(text);
    let (symbol, rest) = text.split_at(end);
    if !symbol.is_empty() && !is_symbol(symbol) {
        return None;
    }
    let (rest, has_note) = match rest.strip_prefix('{') {
        Some(note) => (note.split_once('}')?.1, true),
        None => (rest, false),
    };
    (!symbol.is_empty() || has_note).then_some(rest)
}

/// Where the symbol with its exponent ends: at an operator, a note or a bracket that it does not own.
fn end_of_symbol(text: &str) -> usize {
    let mut is_inside = false;
    for (at, c) in text.char_indices() {
        match c {
            '[' => is_inside = true,
            ']' => is_inside = false,
            '.' | '/' | '{' | '(' | ')' if !is_inside => return at,
            _ => {}
        }
    }
    text.len()
}

fn is_symbol(symbol: &str) -> bool {
    if symbol.bytes().all(|byte| byte.is_ascii_digit()) {
        return true; // a factor, such as 100 or 1
    }
    let base = match symbol.strip_prefix("10*").or_else(|| symbol.strip_prefix("10^")) {
        Some(power) => return exponent(power).is_empty(),
        None => symbol.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(['+', '-']),
    };
    // The exponent goes only where digits stand behind the sign.
    let is_whole = base.len() == symbol.len() || symbol.ends_with(|c: char| c.is_ascii_digit());
    let known = |text: &str| METRIC.contains(&text) || PLAIN.contains(&text);
    let prefixed = |text: &str| {
        PREFIXES.iter().any(|prefix| text.strip_prefix(prefix).is_some_and(|rest| METRIC.contains(&rest)))
    };
    is_whole && (known(base) || prefixed(base))
}

/// The text without the exponent at its front.
fn exponent(text: &str) -> &str {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let rest = digits.trim_start_matches(|c: char| c.is_ascii_digit());
    if rest.len() == digits.len() { text } else { rest }
}

/// Letters to change, add or leave out (Levenshtein), case counting.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        for (to, place) in b.iter().zip(row.iter_mut().skip(1)) {
            let change = corner + usize::from(from != *to);
            corner = *place;
            left = change.min(corner + 1).min(left + 1);
            *place = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_plants_are_known() {
        for unit in [
            "",
            "Cel",
            "bar",
            "kPa",
            "m3/h",
            "10*3.m3/h",
            "kW.h",
            "W/(m2.K)",
            "{rev}/min",
            "/min",
            "1",
            "%",
            "m3/h{norm}",
            "mm[Hg]",
            "[psi]{gauge}",
            "kg.m-3",
            "m.s-2",
            "uS/cm",
            "GiBy",
            "[in_i'H2O]",
            "dB",
            "10*-6",
            "(kg.m)/s2",
            "100",
            "mL",
            "kvar.h",
            "{pieces}",
            "B[SPL]",
            "m[H2O]",
            "h",
            "[ppm]",
        ] {
            assert!(is_known(unit), "{unit}");
        }
        for (written, unit) in WRITTEN {
            assert!(is_known(unit), "{written}: {unit}");
        }
        for unit in COMMON {
            assert!(is_known(unit), "{unit}");
        }
        for list in crate::profiles::names() {
            let text = crate::profiles::list(list).unwrap();
            let mut problems = runtime::config_file::Problems::default();
            crate::points::parse_list(std::path::Path::new(list), text.as_bytes(), "d", &mut problems);
            assert!(problems.warnings.is_empty(), "{list}: {:?}", problems.warnings.first());
        }
    }

    #[test]
    fn slips_are_found_and_what_was_meant_is_said() {
        for (unit, meant) in [
            ("KW", Some("kW")),
            ("kWh", Some("kW.h")),
            ("BAR", Some("bar")),
            ("rpm", Some("{rev}/min")),
            ("degC", Some("Cel")),
            ("celsius", Some("Cel")),
            ("psi", Some("[psi]")),
            ("Bar", Some("bar")),
            ("mbra", None),
            ("kPaa", Some("kPa{absolute}")),
            ("m3/hr", Some("m3/h")),
            ("m3//h", Some("m3/h")),
            ("furlong", None),
            ("m[", None),
            ("(m", None),
            ("kmin", None),
            ("m-", None),
            (".m", None),
            ("kg/", None),
            ("{", None),
        ] {
            assert!(!is_known(unit), "{unit}");
            let found = suggestion(unit);
            if meant.is_some() || unit == "furlong" {
                assert_eq!(found.as_deref(), meant, "{unit}");
            }
        }
        let deep = format!("{}m{}", "(".repeat(100), ")".repeat(100));
        assert!(!is_known(&deep));
    }

    #[test]
    fn what_people_write_becomes_ucum() {
        for (written, unit) in [
            ("°C", "Cel"),
            ("m³/h", "m3/h"),
            ("l / min", "l/min"),
            ("RPM", "{rev}/min"),
            ("Nm", "N.m"),
            ("%", "%"),
            ("kvar", "kvar"),
        ] {
            assert_eq!(ucum(written).as_deref(), Some(unit), "{written}");
        }
        assert_eq!(ucum("Hühner"), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
