//! Parameters of a template: `{n}`, `{n+4}`, `{n*100}`, `{n*100+4}` in a cell. Pure.

/// The cell with its parameters filled in. Braces around something else are left where `keeps_unknown`, else a mistake.
pub(super) fn fill_in(
    cell: &str,
    parameters: &[(String, String)],
    keeps_unknown: bool,
) -> Result<String, String> {
    let (mut text, mut rest) = (String::new(), cell);
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let Some((term, behind)) = after.split_once('}') else {
            text.push('{');
            rest = after;
            continue;
        };
        match value(term, parameters) {
            Ok(found) => text.push_str(&found),
            Err(Unknown::Name) if keeps_unknown => {
                text.push('{');
                text.push_str(term);
                text.push('}');
            }
            Err(Unknown::Name) => {
                let known: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
                return Err(format!("{{{term}}} is no parameter of the device; known: {}", known.join(", ")));
            }
            Err(Unknown::Number(rule)) => return Err(rule),
        }
        rest = behind;
    }
    text.push_str(rest);
    Ok(text)
}

enum Unknown {
    Name,
    Number(String),
}

fn value(term: &str, parameters: &[(String, String)]) -> Result<String, Unknown> {
    let (product, added) = match term.split_once('+') {
        Some((product, added)) => (product, Some(added)),
        None => (term, None),
    };
    let (name, factor) = match product.split_once('*') {
        Some((name, factor)) => (name, Some(factor)),
        None => (product, None),
    };
    let found = parameters.iter().find(|(known, _)| known == name.trim()).ok_or(Unknown::Name)?;
    if factor.is_none() && added.is_none() {
        return Ok(found.1.clone());
    }
    let number = |text: &str| {
        let rule = || Unknown::Number(format!("{{{term}}}: {text:?} is no whole number to calculate with"));
        text.trim().parse::<i64>().map_err(|_| rule())
    };
    let product = number(&found.1)?.checked_mul(factor.map_or(Ok(1), number)?);
    let sum = product.zip(added.map_or(Ok(0), number).map(Some)?).and_then(|(a, b)| a.checked_add(b));
    sum.map(|sum| sum.to_string()).ok_or_else(|| Unknown::Number(format!("{{{term}}} is too large")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_filled_in_and_calculated_with() {
        let parameters = [("n".to_owned(), "3".to_owned()), ("hall".to_owned(), "A".to_owned())];
        let fill = |cell| fill_in(cell, &parameters, false);
        assert_eq!(fill("press-{n}/{hall}/x"), Ok("press-3/A/x".into()));
        assert_eq!(fill("hr:{n*100+4} CDAB"), Ok("hr:304 CDAB".into()));
        assert_eq!(fill("hr:{n+1}.{n*2}"), Ok("hr:4.6".into()));
        assert_eq!(fill("open { brace"), Ok("open { brace".into()));
        assert!(fill("{m}").unwrap_err().contains("known: n, hall"));
        assert!(fill("{hall+1}").unwrap_err().contains("no whole number"));
        assert!(fill("{n*9223372036854775807}").unwrap_err().contains("too large"));
        assert_eq!(fill_in("{rpm}/{n}", &parameters, true), Ok("{rpm}/3".into()));
    }
}
