//! The table of accepted differences (`ACCEPTED.md`), and the use that is made of it.
//!
//! A row without a reason is refused, and so is one that no difference of a whole run needed: the
//! table says what is true today.

/// One row: where, what both said, and why that is right. `*` stands for any text.
#[derive(Debug, Clone)]
struct Row {
    step: String,
    field: String,
    kafka: String,
    here: String,
    used: bool,
}

/// A place where the two brokers differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub step: String,
    pub field: String,
    pub kafka: String,
    pub here: String,
}

#[derive(Debug, Default)]
pub struct Accepted {
    rows: Vec<Row>,
}

impl Accepted {
    /// Reads the table: the lines of five cells, but for its head.
    pub fn read(text: &str) -> Result<Accepted, String> {
        let mut rows = Vec::new();
        for line in text.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [step, field, kafka, here, reason] = cells[..] else {
                return Err(format!("not five cells: {line}"));
            };
            if reason.len() < 10 {
                return Err(format!("no reason: {line}"));
            }
            let cell = |cell: &str| cell.trim_matches('`').to_owned();
            rows.push(Row {
                step: cell(step),
                field: cell(field),
                kafka: cell(kafka),
                here: cell(here),
                used: false,
            });
        }
        Ok(Accepted { rows })
    }

    /// Whether a row allows this.
    pub fn excuses(&mut self, difference: &Difference) -> bool {
        let mut found = false;
        for row in &mut self.rows {
            if matches(&row.step, &difference.step)
                && matches(&row.field, &difference.field)
                && matches(&row.kafka, &difference.kafka)
                && matches(&row.here, &difference.here)
            {
                row.used = true;
                found = true;
            }
        }
        found
    }

    /// Rows that nothing needed.
    pub fn unused(&self) -> impl Iterator<Item = String> + '_ {
        let unused = self.rows.iter().filter(|row| !row.used);
        unused.map(|row| format!("{} | {} | {} | {}", row.step, row.field, row.kafka, row.here))
    }
}

/// Whether `text` is `pattern`, in which each `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last: Option<&str> = None;
    for part in parts {
        if let Some(part) = last {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        last = Some(part);
    }
    last.map_or(rest.is_empty(), |part| rest.ends_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("*aa", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn rows_are_used_or_reported() {
        let table = "| step | field | Kafka | here | why |\n|---|---|---|---|---|\n\
                     | `a *` | `code` | `1` | `*` | a reason of some length |\n\
                     | `b` | `code` | `1` | `2` | a reason of some length |\n";
        let mut accepted = Accepted::read(table).expect("a table");
        let mut difference = Difference {
            step: "a 1".into(),
            field: "code".into(),
            kafka: "1".into(),
            here: "5".into(),
        };
        assert!(accepted.excuses(&difference));
        difference.kafka = "2".into();
        assert!(!accepted.excuses(&difference));
        assert_eq!(accepted.unused().collect::<Vec<_>>(), ["b | code | 1 | 2"]);
        assert!(Accepted::read("| `a` | `b` | `c` | `d` | no |").is_err());
    }
}
