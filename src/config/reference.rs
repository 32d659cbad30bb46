//! The configuration reference and the listing of `config check`, both made from the registry.
//!
//! The reference is a TOML file with every option commented out at its default; a golden copy of it
//! stands beside this file, so that no name, default or limit changes by accident.

use super::{Default, Key, Kind, Origin, Resolved, Value, FILE_VARIABLES, KEYS};

/// The width that comments are filled to.
const WIDTH: usize = 96;

/// The whole reference, as a TOML file that changes nothing.
pub fn reference() -> String {
    let mut out = String::from(
        "# Configuration of chronik-server: every option, with its default.\n\
         #\n\
         # A flag beats the environment, the environment beats this file. The flag of an option is\n\
         # its name with dashes (--kafka-port); its environment variable is CHRONIK_ and its name in\n\
         # capitals (CHRONIK_KAFKA_PORT). The file itself is named by --config, or by\n",
    );
    out += &format!("# {}. ", FILE_VARIABLES.join(" or "));
    out += "An option may stand at the top or under [cluster].\n";
    let mut section = None;
    for key in KEYS {
        if section != Some(key.section) {
            section = Some(key.section);
            out += &format!("\n# ---- {} ----\n", key.section.title());
        }
        out.push('\n');
        out += &entry(key);
    }
    out
}

fn entry(key: &Key) -> String {
    let mut out = filled(key.doc);
    out += &filled(&format!("Takes {}.", key.kind.legal()));
    if !key.aliases.is_empty() {
        out += &filled(&format!("Also understood as: {}.", key.aliases.join(", ")));
    }
    if !key.environment.is_empty() {
        out += &filled(&format!("Also read from: {}.", key.environment.join(", ")));
    }
    match key.default {
        Default::Is(_) => {
            let value = key.default_value().map(|value| spelled(&key.kind, &value));
            out += &format!("# {} = {}\n", key.name, value.unwrap_or_default());
        }
        Default::Unset(meaning) => {
            out += &filled(&format!("Unset by default: {meaning}."));
            out += &format!("# {} =\n", key.name);
        }
    }
    out
}

fn spelled(kind: &Kind, value: &Value) -> String {
    match kind.is_bare() {
        true => value.to_string(),
        false => toml::Value::String(value.to_string()).to_string(),
    }
}

fn filled(text: &str) -> String {
    let (mut out, mut line) = (String::new(), String::from("#"));
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            out += &line;
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line += word;
    }
    out + &line + "\n"
}

/// The resolved values with where each came from; only those that somebody set unless `all`.
pub fn listing(resolved: &Resolved, all: bool) -> String {
    let shown: Vec<_> = resolved
        .values
        .iter()
        .filter(|(_, _, origin)| all || *origin != Origin::Default)
        .map(|(name, value, origin)| {
            let key = KEYS.iter().find(|key| key.name == *name);
            let text = match (key, value) {
                (Some(key), Some(value)) => spelled(&key.kind, value),
                _ => "(unset)".to_string(),
            };
            (format!("{name} = {text}"), origin)
        })
        .collect();
    let width = shown.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    shown.iter().map(|(left, origin)| format!("{left:width$}  # {origin}\n")).collect()
}
