//! An answer as a tree of named values, made from its derived `Debug` text.
//!
//! All messages of the codec crate derive `Debug`, so that one small reader of that notation gives
//! every field of every API a path, without code for each of them. Record batches within an answer
//! are taken apart too. Knows nothing of brokers.

use crate::batch;

/// One value of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A number, a boolean, an id; `null` for what is absent.
    Token(String),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Node>),
    Fields(Vec<(String, Node)>),
}

impl Node {
    /// Reads the `Debug` text of a message.
    pub fn read(text: &str) -> Node {
        let mut reader = Reader { text: text.as_bytes(), at: 0 };
        let node = reader.value();
        assert_eq!(reader.at, text.len(), "all of the text is read: {text}");
        node
    }

    /// Every leaf with its path, as `topics[0].name`.
    pub fn leaves(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        self.collect("", &mut found);
        found
    }

    fn collect(&self, path: &str, found: &mut Vec<(String, String)>) {
        match self {
            Node::Token(token) => found.push((path.to_owned(), token.clone())),
            Node::Text(text) => found.push((path.to_owned(), format!("\"{text}\""))),
            Node::Bytes(bytes) => found.push((path.to_owned(), hex(bytes))),
            Node::List(items) => {
                found.push((format!("{path}.len"), items.len().to_string()));
                for (i, item) in items.iter().enumerate() {
                    item.collect(&format!("{path}[{i}]"), found);
                }
            }
            Node::Fields(fields) => {
                for (name, value) in fields {
                    let dot = if path.is_empty() { "" } else { "." };
                    value.collect(&format!("{path}{dot}{name}"), found);
                }
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{digits}")
}

/// A cursor over `Debug` text.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn value(&mut self) -> Node {
        match self.text[self.at] {
            b'[' => Node::List(self.items(b']')),
            b'{' => Node::List(self.items(b'}')),
            b'"' => Node::Text(String::from_utf8_lossy(&self.quoted()).into_owned()),
            b'b' if self.text.get(self.at + 1) == Some(&b'"') => {
                self.at += 1;
                Node::Bytes(self.quoted())
            }
            _ => self.named(),
        }
    }

    /// The values up to `end`, which is passed.
    fn items(&mut self, end: u8) -> Vec<Node> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.blank();
            if self.text[self.at] == end {
                self.at += 1;
                return items;
            }
            items.push(self.value());
            // A map's key stands before its value; tagged fields that nobody knows are all the
            // maps there are.
            if self.text[self.at] == b':' {
                self.at += 2;
                items.push(self.value());
            }
            if self.text[self.at] == b',' {
                self.at += 1;
            }
        }
    }

    /// A number, or a name with what belongs to it: `None`, `Some(x)`, `Id(x)`, `Name { … }`.
    fn named(&mut self) -> Node {
        let start = self.at;
        while self.at < self.text.len() && !b",)]}( ".contains(&self.text[self.at]) {
            self.at += 1;
        }
        let name = String::from_utf8_lossy(&self.text[start..self.at]).into_owned();
        let rest = &self.text[self.at..];
        if rest.starts_with(b"(") {
            let mut inner = self.items(b')');
            assert_eq!(inner.len(), 1, "one value in {name}");
            return inner.remove(0);
        }
        if rest.starts_with(b" {") {
            self.at += 1;
            return Node::Fields(self.fields());
        }
        Node::Token(if name == "None" { "null".to_owned() } else { name })
    }

    fn fields(&mut self) -> Vec<(String, Node)> {
        self.at += 1;
        let mut fields = Vec::new();
        loop {
            self.blank();
            if self.text[self.at] == b'}' {
                self.at += 1;
                return fields;
            }
            let start = self.at;
            while self.text[self.at] != b':' {
                self.at += 1;
            }
            let name = String::from_utf8_lossy(&self.text[start..self.at]).into_owned();
            self.at += 2;
            let value = match self.value() {
                Node::Bytes(bytes) if name == "records" => batch::taken_apart(&bytes),
                other => other,
            };
            fields.push((name, value));
            if self.text[self.at] == b',' {
                self.at += 1;
            }
        }
    }

    fn blank(&mut self) {
        while self.text[self.at] == b' ' {
            self.at += 1;
        }
    }

    /// The content of a quoted string, its escapes resolved.
    fn quoted(&mut self) -> Vec<u8> {
        self.at += 1;
        let mut out = Vec::new();
        loop {
            let byte = self.text[self.at];
            self.at += 1;
            match byte {
                b'"' => return out,
                b'\\' => self.escape(&mut out),
                other => out.push(other),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) {
        let kind = self.text[self.at];
        self.at += 1;
        match kind {
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'0' => out.push(0),
            b'x' => {
                let digits = std::str::from_utf8(&self.text[self.at..self.at + 2]).expect("digits");
                out.push(u8::from_str_radix(digits, 16).expect("two digits"));
                self.at += 2;
            }
            b'u' => {
                let start = self.at;
                while self.text[self.at] != b'}' {
                    self.at += 1;
                }
                out.extend_from_slice(&self.text[start - 2..=self.at]);
                self.at += 1;
            }
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::{metadata_response, MetadataResponse, TopicName};
    use kafka_protocol::protocol::StrBytes;

    #[test]
    fn a_message_becomes_paths_and_values() {
        let topic = metadata_response::MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_static_str("a \"b\", {c}"))))
            .with_error_code(3);
        let answer = MetadataResponse::default().with_topics(vec![topic]);
        let leaves = Node::read(&format!("{answer:?}")).leaves();
        let value = |path: &str| {
            leaves.iter().find(|(known, _)| known == path).map(|(_, value)| value.as_str())
        };
        assert_eq!(value("topics.len"), Some("1"));
        assert_eq!(value("topics[0].name"), Some("\"a \"b\", {c}\""));
        assert_eq!(value("topics[0].error_code"), Some("3"));
        assert_eq!(value("cluster_id"), Some("null"));
        assert_eq!(value("controller_id"), Some("-1"));
    }

    #[test]
    fn bytes_keep_their_value() {
        let bytes = bytes::Bytes::from_static(b"\x00\xff\"\\\n\0a");
        assert_eq!(Node::read(&format!("{bytes:?}")), Node::Bytes(bytes.to_vec()));
    }
}
