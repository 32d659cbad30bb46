//! One configuration key: type, default, rule, documentation; and how its text is read.
//!
//! Values live as text, as Kafka's protocol carries them, in canonical form: trimmed, booleans in
//! lower case, lists joined by a comma. Pure values, any shard.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::error::ConfigError;

/// Kafka's types of values; the number is the one in DescribeConfigs answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Type {
    Boolean = 1,
    String = 2,
    Int = 3,
    Short = 4,
    Long = 5,
    Double = 6,
    List = 7,
    Class = 8,
    Password = 9,
}

/// What a value must satisfy beyond its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    /// A number from 0 to 1.
    Fraction,
    /// 1 to 9, or -1 for the codec's own choice.
    GzipLevel,
    /// One of these strings; for a list, each element.
    OneOf(&'static [&'static str]),
    /// `address:count` elements, joined by commas.
    AddressLimits,
    /// `*` or `partition:broker` elements.
    ThrottledReplicas,
}

/// Whether setting a key changes what this broker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Full,
    /// Accepted, kept and shown, without effect; the text says why.
    None(&'static str),
}

/// A row of a configuration table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    pub name: &'static str,
    pub kind: Type,
    /// `None` is Kafka's null.
    pub default: Option<&'static str>,
    pub rule: Rule,
    pub effect: Effect,
    pub documentation: &'static str,
}

impl Definition {
    /// Checks a value and gives its canonical text.
    pub fn check(&self, value: &str) -> Result<String, ConfigError> {
        self.canonical(value).map_err(|(value, why)| ConfigError::Value {
            name: self.name.to_owned(),
            value,
            why,
        })
    }

    /// The canonical text, or the refused part of the value and the reason.
    fn canonical(&self, value: &str) -> Result<String, (String, String)> {
        let text = value.trim();
        let refuse = |why: String| (value.to_owned(), why);
        match self.kind {
            Type::Boolean => ["true", "false"]
                .into_iter()
                .find(|word| text.eq_ignore_ascii_case(word))
                .map(str::to_owned)
                .ok_or_else(|| refuse("Expected value to be either true or false".to_owned())),
            Type::Short => self.integer::<i16>(text, "SHORT").map_err(refuse),
            Type::Int => self.integer::<i32>(text, "INT").map_err(refuse),
            Type::Long => self.integer::<i64>(text, "LONG").map_err(refuse),
            Type::Double => {
                let number: f64 =
                    text.parse().map_err(|_| refuse("Not a number of type DOUBLE".to_owned()))?;
                self.fraction(number).map_err(refuse)?;
                Ok(format!("{number:?}"))
            }
            Type::List => self.list(text),
            Type::String | Type::Class | Type::Password => {
                self.rule.allows(text).map_err(refuse)?;
                Ok(text.to_owned())
            }
        }
    }

    fn integer<T: std::str::FromStr + Into<i64>>(
        &self,
        text: &str,
        name: &str,
    ) -> Result<String, String> {
        let number: T = text.parse().map_err(|_| format!("Not a number of type {name}"))?;
        let number = number.into();
        match self.rule {
            Rule::AtLeast(min) | Rule::Between(min, _) if number < min => {
                Err(format!("Value must be at least {min}"))
            }
            Rule::Between(_, max) if number > max => {
                Err(format!("Value must be no more than {max}"))
            }
            Rule::GzipLevel if number != -1 && !(1..=9).contains(&number) => {
                Err("Value must be between 1 and 9 or equal to -1".to_owned())
            }
            _ => Ok(number.to_string()),
        }
    }

    /// Not a number is refused as well, where Kafka lets it pass.
    fn fraction(&self, number: f64) -> Result<(), String> {
        match self.rule {
            Rule::Fraction if number > 1.0 => Err("Value must be no more than 1".to_owned()),
            Rule::Fraction if number < 0.0 || number.is_nan() => {
                Err("Value must be at least 0".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn list(&self, text: &str) -> Result<String, (String, String)> {
        let elements = elements(text);
        if let Rule::ThrottledReplicas = self.rule {
            let whole = elements.len() == 1 && elements[0] == "*";
            if !whole && !elements.iter().all(|e| is_replica(e)) {
                let why = format!(
                    "{} must be the literal '*' or a list of replicas in the following format: \
                     [partitionId]:[brokerId],[partitionId]:[brokerId],...",
                    self.name
                );
                return Err((format!("[{}]", elements.join(", ")), why));
            }
        }
        for element in &elements {
            self.rule.allows(element).map_err(|why| ((*element).to_owned(), why))?;
        }
        Ok(elements.join(","))
    }
}

impl Rule {
    fn allows(&self, text: &str) -> Result<(), String> {
        match self {
            Rule::OneOf(words) if !words.contains(&text) => {
                Err(format!("String must be one of: {}", words.join(", ")))
            }
            Rule::AddressLimits => address_limits(text).map(|_| ()),
            _ => Ok(()),
        }
    }
}

/// `address:count` elements; the last colon divides, so that IPv6 addresses need no brackets.
pub(super) fn address_limits(text: &str) -> Result<BTreeMap<IpAddr, u32>, String> {
    let limit = |element: &str| {
        let (address, count) = element.rsplit_once(':')?;
        let address: IpAddr = address.trim_matches(['[', ']']).parse().ok()?;
        Some((address.to_canonical(), count.parse().ok()?))
    };
    elements(text)
        .into_iter()
        .map(|element| limit(element).ok_or_else(|| format!("{element} must be address:count")))
        .collect()
}

/// The elements of a list value; the empty text is the empty list.
pub(super) fn elements(text: &str) -> Vec<&str> {
    let text = text.trim();
    if text.is_empty() {
        return Vec::new();
    }
    text.split(',').map(str::trim).collect()
}

/// `partition:broker`, or nothing: Kafka lets a trailing comma pass.
fn is_replica(element: &str) -> bool {
    let is_number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    element.is_empty() || element.split_once(':').is_some_and(|(p, b)| is_number(p) && is_number(b))
}
