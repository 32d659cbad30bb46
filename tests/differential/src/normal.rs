//! What must differ between two brokers is given the same name on both sides.
//!
//! Ids get a number in the order of their first sight, so that an id that comes back must be the
//! same one: `<uuid 1>`. Times of the run become `<now>`, the broker's port `<port>`, leader epochs
//! that are not -1 `<epoch>` (Kafka starts at 0, a Raft term does not). Everything else is compared
//! as it is. One of these per broker; it lives for the whole run.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::tree::Node;

/// How far from the present a number of milliseconds is still a time of this run.
const NEAR_MS: i64 = 2 * 3600 * 1000;
const UUID_CHARACTERS: usize = 36;
const NO_UUID: &str = "00000000-0000-0000-0000-000000000000";

/// Fields that hold an id which each broker chooses, and the values that are no id.
const IDS: &[(&str, &str, &[&str])] = &[
    ("producer_id", "producer", &["-1"]),
    ("session_id", "session", &["0"]),
    ("cluster_id", "cluster", &["null", "\"\""]),
    ("log_dir", "folder", &[]),
];

#[derive(Clone)]
pub struct Names {
    port: u16,
    /// (kind, value), in the order of first sight.
    seen: Vec<(String, String)>,
}

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    since.as_millis() as i64
}

impl Names {
    pub fn new(port: u16) -> Names {
        Names { port, seen: Vec::new() }
    }

    /// The tree with its ids, times and ports named. With `free_order`, lists are sorted first.
    pub fn normal(&mut self, mut node: Node, free_order: bool) -> Node {
        if free_order {
            sort(&mut node, &self.seen);
        }
        self.walk("", &mut node);
        node
    }

    fn walk(&mut self, name: &str, node: &mut Node) {
        match node {
            Node::List(items) => items.iter_mut().for_each(|item| self.walk(name, item)),
            Node::Fields(fields) => {
                fields.iter_mut().for_each(|(name, value)| self.walk(name, value));
            }
            Node::Token(token) => *token = self.token(name, token),
            Node::Text(text) => *text = self.text(name, text),
            Node::Bytes(_) => {}
        }
    }

    fn token(&mut self, name: &str, token: &str) -> String {
        if let Some(id) = self.chosen(name, token) {
            return id;
        }
        if is_uuid(token.as_bytes()) {
            return self.uuid(token);
        }
        let Ok(number) = token.parse::<i64>() else { return token.to_owned() };
        match number {
            0.. if is_epoch(name) => "<epoch>".into(),
            _ if name == "port" && number == i64::from(self.port) => "<port>".into(),
            _ if is_near(number) => "<now>".into(),
            _ => token.to_owned(),
        }
    }

    fn text(&mut self, name: &str, text: &str) -> String {
        if let Some(id) = self.chosen(name, text) {
            return id;
        }
        let text = text.replace(&format!(":{}", self.port), ":<port>");
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            if rest.len() >= UUID_CHARACTERS && is_uuid(&rest.as_bytes()[..UUID_CHARACTERS]) {
                let (uuid, after) = rest.split_at(UUID_CHARACTERS);
                out.push_str(&self.uuid(uuid));
                rest = after;
                continue;
            }
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits > 0 {
                let (number, after) = rest.split_at(digits);
                let near = number.parse().is_ok_and(is_near);
                out.push_str(if near { "<now>" } else { number });
                rest = after;
                continue;
            }
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
        out
    }

    fn chosen(&mut self, name: &str, value: &str) -> Option<String> {
        let (_, kind, none) = IDS.iter().find(|(field, ..)| *field == name)?;
        if none.contains(&value) || value.is_empty() {
            return None;
        }
        Some(self.number(kind, value))
    }

    fn uuid(&mut self, uuid: &str) -> String {
        if uuid == NO_UUID {
            return uuid.to_owned();
        }
        self.number("uuid", uuid)
    }

    fn number(&mut self, kind: &str, value: &str) -> String {
        let of_kind = |(known, _): &&(String, String)| known == kind;
        let found = self.seen.iter().filter(of_kind).position(|(_, known)| known == value);
        let number = found.unwrap_or_else(|| {
            self.seen.push((kind.to_owned(), value.to_owned()));
            self.seen.iter().filter(of_kind).count() - 1
        });
        format!("<{kind} {}>", number + 1)
    }
}

/// Where a leader epoch of the broker's own stands.
fn is_epoch(name: &str) -> bool {
    name != "committed_leader_epoch" && name.ends_with("leader_epoch") || name == "epoch"
}

fn without_uuids(text: &str) -> String {
    let bytes = text.as_bytes();
    let starts = |at: &usize| bytes.get(*at..*at + UUID_CHARACTERS).is_some_and(is_uuid);
    match (0..bytes.len()).find(starts) {
        Some(at) => text[..at].to_owned() + &without_uuids(&text[at + UUID_CHARACTERS..]),
        None => text.to_owned(),
    }
}

fn is_near(number: i64) -> bool {
    (number - now_ms()).abs() < NEAR_MS
}

fn is_uuid(bytes: &[u8]) -> bool {
    bytes.len() == UUID_CHARACTERS
        && bytes.iter().enumerate().all(|(i, byte)| match i {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Ids by (kind, value), in the order of first sight.
type Seen = [(String, String)];

/// Sorts every list by its text, without what differs between brokers; what is equal then, by the
/// ids that were seen before.
fn sort(node: &mut Node, seen: &Seen) {
    match node {
        Node::List(items) => {
            items.iter_mut().for_each(|item| sort(item, seen));
            items.sort_by_cached_key(|item| {
                let mut anonymous = item.clone();
                forget_ids(&mut anonymous);
                let mut known = Vec::new();
                known_uuids(item, seen, &mut known);
                (format!("{anonymous:?}"), known)
            });
        }
        Node::Fields(fields) => fields.iter_mut().for_each(|(_, value)| sort(value, seen)),
        _ => {}
    }
}

/// The places in `seen` of the UUIDs in the node.
fn known_uuids(node: &Node, seen: &Seen, known: &mut Vec<usize>) {
    match node {
        Node::List(items) => items.iter().for_each(|item| known_uuids(item, seen, known)),
        Node::Fields(fields) => {
            fields.iter().for_each(|(_, value)| known_uuids(value, seen, known));
        }
        Node::Token(text) | Node::Text(text) => {
            let windows = text.as_bytes().windows(UUID_CHARACTERS).filter(|part| is_uuid(part));
            let place = |uuid: &[u8]| seen.iter().position(|(_, id)| id.as_bytes() == uuid);
            known.extend(windows.filter_map(place));
        }
        Node::Bytes(_) => {}
    }
}

fn forget_ids(node: &mut Node) {
    match node {
        Node::List(items) => items.iter_mut().for_each(forget_ids),
        Node::Fields(fields) => {
            fields.retain(|(name, _)| !is_epoch(name) && IDS.iter().all(|(id, ..)| id != name));
            fields.iter_mut().for_each(|(_, value)| forget_ids(value));
        }
        Node::Token(token) if is_uuid(token.as_bytes()) => token.clear(),
        Node::Token(token) if token.parse().is_ok_and(is_near) => token.clear(),
        Node::Text(text) => *text = without_uuids(text),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, value: &str) -> Node {
        Node::Fields(vec![(name.into(), Node::Token(value.into()))])
    }

    #[test]
    fn an_id_keeps_its_name_and_another_gets_another() {
        let mut names = Names::new(1);
        let first = names.normal(token("producer_id", "4000"), false);
        assert_eq!(first, token("producer_id", "<producer 1>"));
        assert_eq!(
            names.normal(token("producer_id", "7"), false),
            token("producer_id", "<producer 2>")
        );
        assert_eq!(names.normal(token("producer_id", "4000"), false), first);
        assert_eq!(names.normal(token("producer_id", "-1"), false), token("producer_id", "-1"));
    }

    #[test]
    fn texts_lose_ports_times_and_ids() {
        let mut names = Names::new(4321);
        let text = format!("c-{} at h:4321, {} of 12", uuid::Uuid::from_u128(5), now_ms());
        let normal = names.normal(Node::Text(text), false);
        assert_eq!(normal, Node::Text("c-<uuid 1> at h:<port>, <now> of 12".into()));
    }
}
