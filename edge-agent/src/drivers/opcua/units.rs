//! Units of OPC UA (UNECE recommendation 20, three characters in a number) as UCUM texts.

/// UNECE code and UCUM.
const KNOWN: &[(&str, &str)] = &[
    ("CEL", "Cel"),
    ("FAH", "[degF]"),
    ("KEL", "K"),
    ("BAR", "bar"),
    ("MBR", "mbar"),
    ("PAL", "Pa"),
    ("A97", "hPa"),
    ("KPA", "kPa"),
    ("MPA", "MPa"),
    ("PS", "[psi]"),
    ("ATM", "atm"),
    ("MTR", "m"),
    ("CMT", "cm"),
    ("MMT", "mm"),
    ("4H", "um"),
    ("C45", "nm"),
    ("KMT", "km"),
    ("INH", "[in_i]"),
    ("FOT", "[ft_i]"),
    ("MTK", "m2"),
    ("CMK", "cm2"),
    ("MMK", "mm2"),
    ("MTQ", "m3"),
    ("CMQ", "cm3"),
    ("LTR", "L"),
    ("MLT", "mL"),
    ("HLT", "hL"),
    ("MTS", "m/s"),
    ("KMH", "km/h"),
    ("C16", "mm/s"),
    ("2M", "cm/s"),
    ("2X", "m/min"),
    ("MSK", "m/s2"),
    ("A76", "Gal"),
    ("MQH", "m3/h"),
    ("MQS", "m3/s"),
    ("L2", "L/min"),
    ("G51", "L/s"),
    ("E32", "L/h"),
    ("41", "mL/min"),
    ("KGM", "kg"),
    ("GRM", "g"),
    ("MGM", "mg"),
    ("TNE", "t"),
    ("LBR", "[lb_av]"),
    ("KGS", "kg/s"),
    ("E93", "kg/h"),
    ("F31", "kg/min"),
    ("E18", "t/h"),
    ("KMQ", "kg/m3"),
    ("GL", "g/L"),
    ("M1", "mg/L"),
    ("AMP", "A"),
    ("4K", "mA"),
    ("B84", "uA"),
    ("VLT", "V"),
    ("2Z", "mV"),
    ("KVT", "kV"),
    ("OHM", "Ohm"),
    ("B49", "kOhm"),
    ("FAR", "F"),
    ("H81", "H"),
    ("D33", "T"),
    ("D10", "S/m"),
    ("H61", "mS/cm"),
    ("WTT", "W"),
    ("KWT", "kW"),
    ("MAW", "MW"),
    ("C31", "mW"),
    ("D46", "V.A"),
    ("KVA", "kV.A"),
    ("D44", "var"),
    ("KVR", "kvar"),
    ("WHR", "W.h"),
    ("KWH", "kW.h"),
    ("MWH", "MW.h"),
    ("JOU", "J"),
    ("KJO", "kJ"),
    ("3B", "MJ"),
    ("D54", "W/m2"),
    ("HTZ", "Hz"),
    ("KHZ", "kHz"),
    ("MHZ", "MHz"),
    ("RPM", "{rev}/min"),
    ("RPS", "{rev}/s"),
    ("NEW", "N"),
    ("B47", "kN"),
    ("NU", "N.m"),
    ("B48", "kN.m"),
    ("SEC", "s"),
    ("MIN", "min"),
    ("HUR", "h"),
    ("DAY", "d"),
    ("C26", "ms"),
    ("B98", "us"),
    ("C47", "ns"),
    ("P1", "%"),
    ("59", "[ppm]"),
    ("61", "[ppb]"),
    ("C62", "1"),
    ("DD", "deg"),
    ("C81", "rad"),
    ("2N", "dB"),
    ("Q30", "[pH]"),
    ("LUX", "lx"),
    ("LUM", "lm"),
    ("CDL", "cd"),
    ("C34", "mol"),
    ("C36", "mol/m3"),
    ("BQL", "Bq"),
    ("D13", "Sv"),
];

/// Texts that servers without a code write.
const TEXTS: &[(&str, &str)] = &[
    ("°C", "Cel"),
    ("℃", "Cel"),
    ("degC", "Cel"),
    ("°F", "[degF]"),
    ("°", "deg"),
    ("µm", "um"),
    ("μm", "um"),
    ("m³", "m3"),
    ("m³/h", "m3/h"),
    ("m²", "m2"),
    ("kWh", "kW.h"),
    ("Wh", "W.h"),
    ("Nm", "N.m"),
    ("rpm", "{rev}/min"),
    ("1/min", "/min"),
    ("l", "L"),
    ("l/min", "L/min"),
    ("l/h", "L/h"),
    ("ppm", "[ppm]"),
    ("psi", "[psi]"),
    ("pH", "[pH]"),
    ("Ω", "Ohm"),
];

/// UCUM for a unit's number and the text beside it; empty if neither is known.
pub(super) fn ucum(number: i32, text: &str) -> String {
    let code: String = number.to_be_bytes().into_iter().filter(|byte| *byte != 0).map(char::from).collect();
    let by_code = KNOWN.iter().find(|(known, _)| number > 0 && *known == code);
    let text = text.trim();
    let by_text = || TEXTS.iter().find(|(known, _)| *known == text);
    if let Some((_, unit)) = by_code.or_else(by_text) {
        return (*unit).to_owned();
    }
    // Many write the symbol itself.
    let is_known = KNOWN.iter().any(|(_, unit)| *unit == text);
    if is_known { text.to_owned() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_known_by_number_symbol_or_not_at_all() {
        assert_eq!(ucum(4_408_652, "whatever"), "Cel"); // "CEL"
        assert_eq!(ucum(20_529, "%"), "%"); // "P1"
        assert_eq!(ucum(-1, "°C"), "Cel");
        assert_eq!(ucum(0, "bar"), "bar");
        assert_eq!(ucum(0, "furlong"), "");
    }

    #[test]
    fn every_unit_passes_the_rule_of_point_lists() {
        for (_, unit) in KNOWN.iter().chain(TEXTS) {
            assert!(unit.bytes().all(|byte| byte.is_ascii_graphic()), "{unit}");
        }
    }
}
