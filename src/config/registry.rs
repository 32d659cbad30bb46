//! Every option of the broker, once: name, kind, default, documentation, and where it goes.
//!
//! The file, the environment, the flags, `--help`, `config check` and the reference are all made
//! from [`KEYS`]. A key stands there only when it works. Names are Kafka's own with underscores
//! where Kafka has the setting; the unit is the last word of the name.

use super::keys::KEYS;
use super::value::{Kind, Value};
use super::Config;

/// The headings of the reference and of `standalone --help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    Node,
    Topics,
    Durability,
    Groups,
    Limits,
    Operations,
}

impl Section {
    pub fn title(self) -> &'static str {
        match self {
            Section::Node => "Node and addresses",
            Section::Topics => "Topics",
            Section::Durability => "Durability and disk",
            Section::Groups => "Groups and offsets",
            Section::Limits => "Limits",
            Section::Operations => "Operations",
        }
    }
}

/// What an option is when nobody sets it.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    /// This text, parsed like any other value.
    Is(&'static str),
    /// Nothing is set; the text says what the broker does then.
    Unset(&'static str),
}

/// One option.
pub struct Key {
    /// As in the file; the flag is this with dashes, the environment variable `CHRONIK_` and this
    /// in capitals.
    pub name: &'static str,
    /// Further names that the file, and as `CHRONIK_` twins the environment, may use.
    pub aliases: &'static [&'static str],
    /// Further environment variables, complete; they yield to the `CHRONIK_` twin.
    pub environment: &'static [&'static str],
    pub section: Section,
    pub kind: Kind,
    pub default: Default,
    /// Whole sentences; the first is what `--help` shows.
    pub doc: &'static str,
    pub target: Target,
}

/// Where a value goes that the kind has checked.
#[derive(Clone, Copy)]
pub enum Target {
    /// Into a field of the configuration.
    Field(fn(&mut Config, &Value)),
    /// To the broker under Kafka's own name, where DescribeConfigs shows it too.
    Kafka(&'static str),
}

impl Key {
    pub fn flag(&self) -> String {
        self.name.replace(['_', '.'], "-")
    }

    /// Every environment variable that sets this option, the strongest first.
    pub fn variables(&self) -> Vec<String> {
        let twins = std::iter::once(&self.name).chain(self.aliases).map(|name| twin(name));
        twins.chain(self.environment.iter().map(|name| name.to_string())).collect()
    }

    pub fn summary(&self) -> &'static str {
        self.doc.split_inclusive(". ").next().unwrap_or(self.doc).trim_end()
    }
}

fn twin(name: &str) -> String {
    format!("CHRONIK_{}", name.replace('.', "_").to_ascii_uppercase())
}

/// The option with this name or alias.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name || key.aliases.contains(&name))
}

/// What an option belongs to that guides for brokers like this one name, and that this version does
/// not have.
pub fn not_yet(name: &str) -> Option<&'static str> {
    const CLUSTER: [&str; 10] = [
        "bootstrap",
        "bootstrap_expect",
        "bootstrap_timeout",
        "discovery",
        "discovery_srv",
        "enabled",
        "force_bootstrap",
        "join",
        "peers",
        "retry_join",
    ];
    let name = name.to_ascii_lowercase().replace('-', "_");
    let cluster = CLUSTER.contains(&name.as_str())
        || ["raft.", "isr.", "gossip.", "raft_", "isr_", "gossip_"]
            .iter()
            .any(|table| name.starts_with(table));
    match name.as_str() {
        _ if cluster => Some("clusters of several nodes"),
        "object_store_backend" | "s3_bucket" => Some("tiered storage"),
        _ => None,
    }
}

/// The known name nearest to `name`, if any is near enough to be what was meant.
pub fn nearest(name: &str) -> Option<&'static str> {
    let wanted = name.to_ascii_lowercase().replace(['-', '.'], "_");
    let names = KEYS.iter().flat_map(|key| std::iter::once(&key.name).chain(key.aliases));
    let (distance, found) =
        names.map(|candidate| (edit_distance(&wanted, candidate), *candidate)).min()?;
    (distance <= wanted.len().max(found.len()).div_ceil(3)).then_some(found)
}

/// Levenshtein distance in bytes.
fn edit_distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_across_aliases_and_variables() {
        let mut names: Vec<_> =
            KEYS.iter().flat_map(|key| std::iter::once(&key.name).chain(key.aliases)).collect();
        let mut variables: Vec<_> = KEYS.iter().flat_map(Key::variables).collect();
        let (all, all_variables) = (names.len(), variables.len());
        names.sort();
        names.dedup();
        variables.sort();
        variables.dedup();
        assert_eq!((names.len(), variables.len()), (all, all_variables));
    }

    #[test]
    fn the_unit_is_the_last_word_of_the_name() {
        for key in KEYS {
            let expected = match key.kind {
                Kind::Bytes { .. } => Some("_bytes"),
                Kind::Millis { .. } => Some("_ms"),
                Kind::Minutes { .. } => Some("_minutes"),
                _ => None,
            };
            let has = ["_bytes", "_ms", "_minutes"].into_iter().find(|u| key.name.ends_with(u));
            assert_eq!(has, expected, "{}", key.name);
        }
    }

    #[test]
    fn sections_stand_together_and_documentation_is_sentences() {
        let sections: Vec<_> = KEYS.iter().map(|key| key.section).collect();
        assert!(sections.windows(2).all(|pair| pair[0] <= pair[1]));
        for key in KEYS {
            assert!(key.doc.ends_with('.'), "{}", key.name);
            assert!(!key.doc.contains("  "), "{}: {}", key.name, key.doc);
        }
    }

    #[test]
    fn a_typing_error_finds_the_key_that_was_meant() {
        assert_eq!(nearest("num_partition"), Some("num_partitions"));
        assert_eq!(nearest("num.partitions"), Some("num_partitions"));
        assert_eq!(nearest("default.replication.factor"), Some("default_replication_factor"));
        assert_eq!(nearest("kafka_prot"), Some("kafka_port"));
        assert_eq!(nearest("zookeeper"), None);
    }

    #[test]
    fn what_this_version_has_is_not_called_absent() {
        for name in KEYS.iter().flat_map(|key| std::iter::once(&key.name).chain(key.aliases)) {
            assert_eq!(not_yet(name), None, "{name}");
        }
        assert!(not_yet("retry-join").is_some() && not_yet("raft.election_timeout_ms").is_some());
    }
}
