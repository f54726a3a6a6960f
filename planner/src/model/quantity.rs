//! Kubernetes quantities, in the form that the schema allows: `4000`, `4k`, `1.5`, `256Mi`.

/// The value of a quantity; `None` when it is none or not above 0.
pub fn positive(text: &str) -> Option<f64> {
    parse(text).filter(|value| *value > 0.0)
}

/// The value of a quantity; `None` when it is none.
pub fn parse(text: &str) -> Option<f64> {
    let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let scale = match unit {
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    // At most 15 digits before the dot, as the schema says: beyond, a float is no longer exact to the unit.
    let digits = number.bytes().take_while(u8::is_ascii_digit).count();
    number.parse::<f64>().ok().filter(|_| (1..=15).contains(&digits)).map(|number| number * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Option<f64>) {
        assert_eq!(positive(text), expect, "{text}");
    }

    #[test]
    fn quantities() {
        check("4000", Some(4000.0));
        check("4k", Some(4000.0));
        check("1.5", Some(1.5));
        check("500m", Some(0.5));
        check("256Mi", Some(268_435_456.0));
        assert_eq!(parse("0"), Some(0.0));
        for bad in ["", "0", "0Mi", "-1", "1e3", "4 k", "4K", ".", ".5", "1..2", "9999999999999999", "é", "1é"] {
            check(bad, None);
        }
    }
}
