//! Who this node is: a small file in the data folder, durable before anything else is written.
//!
//! `node` is text, so that an operator can read it:
//!
//! ```text
//! chronik-node 1
//! node_id = 1
//! node_uuid = 6f9619ff-8b86-4d01-b42d-00cf4fc964ff
//! cluster_id = 2b1c…            the same UUID that clients see in base64url
//! founded = true                set once the metadata group is durable
//! crc32c = 9d3a0b17             of everything above this line
//! ```

use std::io;

use rt::{Dir, Shard};
use thiserror::Error;
use uuid::Uuid;
use wal::layout::WAL_FOLDER;

/// Name of the file within the data folder.
pub const FILE: &str = "node";
const FIRST_LINE: &str = "chronik-node 1";
const FIRST_WORD: &str = "chronik-node ";

/// What a node knows about itself without any log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub node_id: i32,
    pub node_uuid: Uuid,
    pub cluster_id: Uuid,
    /// The metadata group was made durable; without it in the log later, the log is damaged.
    pub founded: bool,
}

/// Why the data folder cannot be used by this node.
#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(
        "the file `{FILE}` of the data folder is damaged ({0}); restore it from a backup of the \
         same node, or move the data folder away to start as a new node"
    )]
    Damaged(&'static str),
    #[error(
        "the data folder was written by a newer version of Chronik (its format is `{0}`); start \
         that version, or a newer one"
    )]
    Newer(String),
    #[error(
        "the data folder has logs but no file `{FILE}`, which says whose they are; restore it from \
         a backup of the same node, or move the data folder away to start as a new node"
    )]
    Missing,
    #[error(
        "the files `{FILE}` and `layout` of the data folder belong to different nodes: parts of \
         two folders were mixed; restore the folder from a backup of one node"
    )]
    Mixed,
    #[error(
        "the data folder belongs to node {found}, and this node is configured as {configured}; \
         start it with --node-id {found}, or with another data folder"
    )]
    OtherNode { found: i32, configured: i32 },
}

impl Identity {
    /// The identity that the folder holds, or a new one that is made durable there. `node_uuid` is
    /// that of the folder's layout.
    pub async fn load_or_create(
        shard: &Shard,
        data: &Dir,
        node_id: i32,
        node_uuid: Uuid,
    ) -> Result<Identity, IdentityError> {
        if data.exists(FILE).await? {
            let bytes = data.read(FILE).await?;
            let identity = Identity::parse(&bytes)?;
            if identity.node_id != node_id {
                let found = identity.node_id;
                return Err(IdentityError::OtherNode { found, configured: node_id });
            }
            if identity.node_uuid != node_uuid {
                return Err(IdentityError::Mixed);
            }
            return Ok(identity);
        }
        // The folder of the logs is made after this file: a new node has none.
        if data.exists(WAL_FOLDER).await? {
            return Err(IdentityError::Missing);
        }
        let identity =
            Identity { node_id, node_uuid, cluster_id: random_uuid(shard), founded: false };
        identity.store(data).await?;
        Ok(identity)
    }

    /// Replaces the file; durable when this returns.
    pub async fn store(&self, data: &Dir) -> Result<(), IdentityError> {
        data.replace(FILE, self.text().as_bytes()).await?;
        Ok(())
    }

    fn text(&self) -> String {
        let body = format!(
            "{FIRST_LINE}\nnode_id = {}\nnode_uuid = {}\ncluster_id = {}\nfounded = {}\n",
            self.node_id, self.node_uuid, self.cluster_id, self.founded
        );
        let crc = crc32c::crc32c(body.as_bytes());
        format!("{body}crc32c = {crc:08x}\n")
    }

    fn parse(bytes: &[u8]) -> Result<Identity, IdentityError> {
        let damaged = IdentityError::Damaged;
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
        let first = text.lines().next().unwrap_or_default();
        if first != FIRST_LINE {
            return Err(match first.strip_prefix(FIRST_WORD) {
                Some(version) => IdentityError::Newer(version.to_owned()),
                None => damaged("its first line is not ours"),
            });
        }
        let end = text.find("crc32c = ").ok_or(damaged("its checksum is missing"))?;
        let (body, checksum) = text.split_at(end);
        let stored = checksum.trim_end().strip_prefix("crc32c = ").unwrap_or_default();
        if stored != format!("{:08x}", crc32c::crc32c(body.as_bytes())) {
            return Err(damaged("its checksum is wrong"));
        }
        let field = |name: &str| {
            let mut lines = body.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
            value.ok_or(damaged("a field is missing"))
        };
        let uuid =
            |name: &str| Uuid::parse_str(field(name)?).map_err(|_| damaged("a UUID is malformed"));
        Ok(Identity {
            node_id: field("node_id")?.parse().map_err(|_| damaged("node_id is no number"))?,
            node_uuid: uuid("node_uuid")?,
            cluster_id: uuid("cluster_id")?,
            founded: field("founded")? == "true",
        })
    }
}

/// A random UUID whose text form does not start with `-`, which tools would take for an option.
fn random_uuid(shard: &Shard) -> Uuid {
    loop {
        let uuid = uuid::Builder::from_random_bytes(shard.entropy()).into_uuid();
        if uuid.as_bytes()[0] >> 2 != 62 {
            return uuid;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            node_id: 3,
            node_uuid: Uuid::from_u128(0x1111),
            cluster_id: Uuid::from_u128(0x2222),
            founded: true,
        }
    }

    #[test]
    fn the_text_is_read_back() {
        assert_eq!(Identity::parse(identity().text().as_bytes()).unwrap(), identity());
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let text = identity().text().into_bytes();
        // The line end behind the checksum carries nothing.
        for at in 0..text.len() - 1 {
            let mut bytes = text.clone();
            bytes[at] ^= 1;
            assert!(Identity::parse(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let error = Identity::parse(b"chronik-node 2\n").unwrap_err();
        assert!(matches!(error, IdentityError::Newer(version) if version == "2"));
    }

    #[test]
    fn an_identity_is_made_once_and_belongs_to_its_node() {
        rt::sim::run(7, |shard| async move {
            let data = shard.create_dir("/data").await.unwrap();
            let uuid = Uuid::from_u128(7);
            let made = Identity::load_or_create(&shard, &data, 1, uuid).await.unwrap();
            let read = Identity::load_or_create(&shard, &data, 1, uuid).await.unwrap();
            assert_eq!(made, read);
            let mixed = Identity::load_or_create(&shard, &data, 1, Uuid::nil()).await.unwrap_err();
            assert!(matches!(mixed, IdentityError::Mixed));
            let other = Identity::load_or_create(&shard, &data, 2, uuid).await.unwrap_err();
            assert!(matches!(other, IdentityError::OtherNode { found: 1, configured: 2 }));
        });
    }

    /// A new cluster beside old logs: clients would be told another cluster id, and the metadata
    /// group would be founded twice.
    #[test]
    fn logs_without_an_identity_are_nobodys() {
        rt::sim::run(8, |shard| async move {
            let data = shard.create_dir("/data").await.unwrap();
            data.create_subdir(WAL_FOLDER).await.unwrap();
            let made = Identity::load_or_create(&shard, &data, 1, Uuid::nil()).await;
            assert!(matches!(made.unwrap_err(), IdentityError::Missing));
            assert!(!data.exists(FILE).await.unwrap());
        });
    }
}
