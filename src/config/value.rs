//! The kinds of value an option can take: how each is written, checked and shown.
//!
//! Everything arrives as text (a flag, an environment variable, a TOML scalar spelled out) and leaves
//! as a [`Value`]. Nothing here knows an option's name; the registry pairs names with kinds.

use std::fmt;

/// How an option's value is written and which values are legal. Ranges are inclusive.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Bool,
    Integer {
        min: i64,
        max: i64,
    },
    /// A size; `512 MiB` and `536870912` are the same. `-1` is legal where `min` is negative.
    Bytes {
        min: i64,
        max: i64,
    },
    /// A time in milliseconds; `7d`, `90s` and `250ms` are understood.
    Millis {
        min: i64,
        max: i64,
    },
    /// A time in minutes; `7d` and `12h` are understood.
    Minutes {
        min: i64,
        max: i64,
    },
    /// Any text without line breaks.
    Text,
    /// A host name or address, without a port.
    Host,
    /// An IP address to listen on.
    Address,
    Path,
    /// One of a fixed set of words.
    Choice(&'static [&'static str]),
}

/// A checked value. Numbers are in the kind's base unit: bytes, milliseconds or minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Bool(bool),
    Integer(i64),
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(value) => write!(f, "{value}"),
            Value::Integer(value) => write!(f, "{value}"),
            Value::Text(value) => f.write_str(value),
        }
    }
}

const BYTE_UNITS: &[(&str, i64)] = &[
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1_000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
];

const MILLI_UNITS: &[(&str, i64)] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const MINUTE_UNITS: &[(&str, i64)] = &[("m", 1), ("h", 60), ("d", 1_440)];

impl Kind {
    /// The word that help and the reference use for a value of this kind.
    pub fn placeholder(&self) -> &'static str {
        match self {
            Kind::Bool => "true|false",
            Kind::Integer { .. } => "N",
            Kind::Bytes { .. } => "BYTES",
            Kind::Millis { .. } => "MS",
            Kind::Minutes { .. } => "MINUTES",
            Kind::Text => "TEXT",
            Kind::Host => "HOST",
            Kind::Address => "ADDRESS",
            Kind::Path => "PATH",
            Kind::Choice(_) => "WORD",
        }
    }

    /// Which values are legal, for people.
    pub fn legal(&self) -> String {
        match *self {
            Kind::Bool => "true or false".into(),
            Kind::Integer { min, max } => range("an integer", min, max, ""),
            Kind::Bytes { min, max } => {
                range("a size in bytes (or 64 KiB, 512 MiB, 1 GiB)", min, max, "")
            }
            Kind::Millis { min, max } => {
                range("a time in milliseconds (or 250ms, 10s, 5m, 7d)", min, max, "")
            }
            Kind::Minutes { min, max } => range("a time in minutes (or 12h, 7d)", min, max, ""),
            Kind::Text => "text on one line".into(),
            Kind::Host => "a host name or IP address, without a port".into(),
            Kind::Address => "an IP address of this machine, such as 0.0.0.0 or ::1".into(),
            Kind::Path => "a path".into(),
            Kind::Choice(words) => format!("one of: {}", words.join(", ")),
        }
    }

    /// Parses `text`. The error is a sentence without the option's name, naming what is legal.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        let parsed = match *self {
            Kind::Bool => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Some(Value::Bool(true)),
                "false" | "no" | "off" | "0" => Some(Value::Bool(false)),
                _ => None,
            },
            Kind::Integer { min, max } => bounded(text.parse().ok(), min, max),
            Kind::Bytes { min, max } => bounded(with_unit(text, BYTE_UNITS), min, max),
            Kind::Millis { min, max } => bounded(with_unit(text, MILLI_UNITS), min, max),
            Kind::Minutes { min, max } => bounded(with_unit(text, MINUTE_UNITS), min, max),
            Kind::Text | Kind::Path => is_line(text).then(|| Value::Text(text.into())),
            Kind::Host => is_host(text).then(|| Value::Text(text.into())),
            Kind::Address => text
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .ok()
                .map(|address| Value::Text(address.to_string())),
            Kind::Choice(words) => words
                .iter()
                .find(|word| word.eq_ignore_ascii_case(text))
                .map(|word| Value::Text((*word).into())),
        };
        parsed.ok_or_else(|| format!("`{text}` is not {}", self.legal()))
    }

    /// True when a TOML file writes this kind without quotes.
    pub fn is_bare(&self) -> bool {
        matches!(
            self,
            Kind::Bool
                | Kind::Integer { .. }
                | Kind::Bytes { .. }
                | Kind::Millis { .. }
                | Kind::Minutes { .. }
        )
    }
}

fn range(what: &str, min: i64, max: i64, unit: &str) -> String {
    match (min, max) {
        (i64::MIN, i64::MAX) => what.to_string(),
        (min, i64::MAX) => format!("{what} of at least {min}{unit}"),
        (min, max) => format!("{what} from {min} to {max}{unit}"),
    }
}

fn bounded(value: Option<i64>, min: i64, max: i64) -> Option<Value> {
    value.filter(|value| (min..=max).contains(value)).map(Value::Integer)
}

fn with_unit(text: &str, units: &[(&str, i64)]) -> Option<i64> {
    let digits = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: i64 = number.trim().replace('_', "").parse().ok()?;
    if unit.is_empty() {
        return Some(number);
    }
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

fn is_line(text: &str) -> bool {
    !text.is_empty() && !text.contains(['\n', '\r', '\0'])
}

fn is_host(text: &str) -> bool {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    !text.is_empty()
        && text.len() <= 253
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY_BYTES: Kind = Kind::Bytes { min: 0, max: i64::MAX };
    const ANY_MILLIS: Kind = Kind::Millis { min: -1, max: i64::MAX };

    #[test]
    fn sizes_and_times_take_units() {
        for (text, expected) in
            [("512", 512), ("64 KiB", 65_536), ("1GiB", 1 << 30), ("2kb", 2_000), ("1_000", 1_000)]
        {
            assert_eq!(ANY_BYTES.parse(text), Ok(Value::Integer(expected)), "{text}");
        }
        for (text, expected) in
            [("250ms", 250), ("10s", 10_000), ("7d", 604_800_000), ("-1", -1), ("5 m", 300_000)]
        {
            assert_eq!(ANY_MILLIS.parse(text), Ok(Value::Integer(expected)), "{text}");
        }
        let minutes = Kind::Minutes { min: 1, max: i64::MAX };
        assert_eq!(minutes.parse("7d"), Ok(Value::Integer(10_080)));
    }

    #[test]
    fn values_outside_their_range_or_unit_are_refused_with_what_is_legal() {
        let port = Kind::Integer { min: 0, max: 65_535 };
        let message = port.parse("70000").unwrap_err();
        assert_eq!(message, "`70000` is not an integer from 0 to 65535");
        for text in ["", "12parsecs", "99999999999999 TiB", "1.5s", "-5"] {
            assert!(ANY_BYTES.parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_carry_no_port_and_addresses_are_numeric() {
        assert!(Kind::Host.parse("node1.example.com").is_ok());
        assert!(Kind::Host.parse("::1").is_ok());
        assert!(Kind::Host.parse("node1:9092").is_err());
        assert_eq!(Kind::Address.parse("[::]"), Ok(Value::Text("::".into())));
        assert!(Kind::Address.parse("localhost").is_err());
    }

    #[test]
    fn words_are_matched_without_case_and_kept_in_their_own_spelling() {
        let flush = Kind::Choice(&["always", "relaxed"]);
        assert_eq!(flush.parse("Always"), Ok(Value::Text("always".into())));
        assert_eq!(flush.parse("never").unwrap_err(), "`never` is not one of: always, relaxed");
    }
}
