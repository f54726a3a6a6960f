//! Names of what the operator makes for a fleet. One place, since proxies are known by the name of their service account.

use snapshot::Hash;

/// Longest name of a Service, which is a DNS label.
const MAX_NAME_LEN: usize = 63;
/// Hexadecimal digits that tell shortened names apart.
const HASH_DIGITS: usize = 10;
/// Names that the operator's own objects have.
const RESERVED: &[&str] = &["sluice-operator"];

/// The name of every object of the fleet, in the fleet's namespace: `sluice-NAME`. A name that is too long for a
/// Service, has a dot, or is the operator's own, is cut and gets a hash.
pub fn fleet_object(name: &str) -> String {
    let plain = format!("sluice-{name}");
    if plain.len() <= MAX_NAME_LEN && !name.contains('.') && !RESERVED.contains(&plain.as_str()) {
        return plain;
    }
    let hash = Hash::of(name.as_bytes()).to_string();
    let room = MAX_NAME_LEN - HASH_DIGITS - 1;
    let cut: String = plain.chars().map(|c| if c == '.' { '-' } else { c }).take(room).collect();
    format!("{}-{}", cut.trim_end_matches('-'), hash.chars().take(HASH_DIGITS).collect::<String>())
}

/// The fleet's ConfigMap with what its proxies trust operators by.
pub fn fleet_ca(name: &str) -> String {
    format!("{}-ca", fleet_object(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expect: &str) {
        let got = fleet_object(name);
        assert_eq!(got, expect);
        assert!(got.len() <= 63, "{got}");
    }

    #[test]
    fn names_are_labels() {
        check("default", "sluice-default");
        check(&"a".repeat(56), &format!("sluice-{}", "a".repeat(56)));
        check(&"a".repeat(57), &format!("sluice-{}-{}", "a".repeat(45), digits(&"a".repeat(57))));
        check("eu.shop", &format!("sluice-eu-shop-{}", digits("eu.shop")));
        check("operator", &format!("sluice-operator-{}", digits("operator")));
        // Cut at a dash, it still ends in one only.
        let long = format!("{}-{}", "a".repeat(44), "b".repeat(20));
        check(&long, &format!("sluice-{}-{}", "a".repeat(44), digits(&long)));
        assert_ne!(fleet_object("eu.shop"), fleet_object("eu-shop"));
        assert_eq!(fleet_ca("default"), "sluice-default-ca");
    }

    fn digits(name: &str) -> String {
        Hash::of(name.as_bytes()).to_string()[..10].to_owned()
    }
}
