//! Reads a TOML configuration file into flat `(key, text, line)` settings.
//!
//! Tables flatten into dotted names, and a leading `cluster.` falls away, so a key may stand at the
//! top or under `[cluster]`. Whether a key exists is the registry's business, not decided here.

use toml::de::{DeTable, DeValue};

/// One key as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub key: String,
    /// The scalar spelled out; `None` when it is an array, a date or another thing no option takes.
    pub text: Option<String>,
    /// 1-based.
    pub line: usize,
}

/// A file that is not TOML; `line` is 1-based where the parser knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    pub line: Option<usize>,
    pub message: String,
}

/// Flattens the TOML document `source`, in the order of its lines.
pub fn settings(source: &str) -> Result<Vec<Setting>, SyntaxError> {
    let document = DeTable::parse(source).map_err(|error| SyntaxError {
        line: error.span().map(|span| line_at(source, span.start)),
        message: error.message().to_string(),
    })?;
    let mut found = Vec::new();
    flatten(source, "", document.get_ref(), &mut found);
    found.sort_by_key(|setting| setting.line);
    Ok(found)
}

fn flatten(source: &str, prefix: &str, table: &DeTable<'_>, found: &mut Vec<Setting>) {
    for (name, value) in table {
        let key = match prefix {
            "" => name.get_ref().to_string(),
            _ => format!("{prefix}.{}", name.get_ref()),
        };
        if let DeValue::Table(inner) = value.get_ref() {
            flatten(source, &key, inner, found);
            continue;
        }
        let text = match value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .ok()
                .map(|number| number.to_string()),
            DeValue::Float(number) => Some(number.as_str().to_string()),
            DeValue::Boolean(value) => Some(value.to_string()),
            _ => None,
        };
        let key = key.strip_prefix("cluster.").unwrap_or(&key).to_string();
        found.push(Setting { key, text, line: line_at(source, name.span().start) });
    }
}

fn line_at(source: &str, position: usize) -> usize {
    source.as_bytes().iter().take(position).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(source: &str) -> Vec<(String, Option<String>, usize)> {
        settings(source).unwrap().into_iter().map(|s| (s.key, s.text, s.line)).collect()
    }

    #[test]
    fn tables_flatten_and_the_cluster_table_is_the_top() {
        let source = "node_id = 3\n[cluster]\nkafka_port = 0x2384\n[cluster.raft]\nticks = true\n";
        assert_eq!(
            flat(source),
            [
                ("node_id".into(), Some("3".into()), 1),
                ("kafka_port".into(), Some("9092".into()), 3),
                ("raft.ticks".into(), Some("true".into()), 5),
            ]
        );
    }

    #[test]
    fn what_no_option_takes_is_kept_without_text_so_that_it_can_be_named() {
        assert_eq!(flat("peers = [1, 2]\n"), [("peers".into(), None, 1)]);
        assert_eq!(flat("[[peers]]\nid = 1\n"), [("peers".into(), None, 1)]);
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let error = settings("node_id = 1\nshards = = 2\n").unwrap_err();
        assert_eq!(error.line, Some(2));
        assert!(!error.message.is_empty());
    }
}
