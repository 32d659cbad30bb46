//! `chronik-server inspect`: what stands in a data folder, read offline.
//!
//! Changes nothing but the name in the lock file, which it holds while it reads: a folder that a
//! broker uses changes under the reader. `--force-read` reads it all the same, without the lock.

use std::path::{Path, PathBuf};

use clap::{value_parser, Arg, ArgAction, ArgMatches, Command};
use rt::{Dir, Shard};
use shards::broker::META_SHARD;
use shards::log::{inspect_list, inspect_segment, BatchReport, PartitionIdentity, SegmentReport};
use shards::meta::Image;
use shards::offline::metadata;
use wal::inspect::InspectOptions;
use wal::layout::{hyphens, Layout};
use wal::GroupId;

use super::connect::on_shard;
use super::options;
use super::output::{list, print, Table};
use crate::config::Sources;
use crate::failure::{Exit, Failure};
use crate::folder::DataFolder;

const PARTS: [&str; 4] = ["node", "metadata", "wal", "segments"];
/// The identity file of a node, which is text.
const NODE_FILE: &str = "node";

pub fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    Command::new("inspect")
        .about("Show what stands in the data folder of a stopped broker")
        .arg(
            Arg::new("part")
                .value_name("PART")
                .num_args(0..)
                .value_parser(PARTS)
                .help("What to show [default: everything]"),
        )
        .arg(
            Arg::new("data-dir")
                .long("data-dir")
                .value_name("FOLDER")
                .help("The data folder [default: ./data] [env: CHRONIK_DATA_DIR]"),
        )
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("The configuration file that names the folder"),
        )
        .arg(flag("frames", "A line for every frame of the write-ahead log"))
        .arg(flag("records", "A line for every record of the write-ahead log"))
        .arg(flag("batches", "A line for every batch of the segments"))
        .arg(
            Arg::new("group")
                .long("group")
                .value_name("N")
                .value_parser(value_parser!(u64))
                .help("Only this Raft group of the write-ahead log; 0 is the metadata"),
        )
        .arg(flag("force-read", "Read a folder that a broker uses; what is shown may be torn"))
}

pub fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let job = Job::read(matches);
    let folder = options::resolve(&sources(matches))?.config.data_dir;
    if !folder.is_dir() {
        let message = format!("there is no data folder {}", folder.display());
        return Err(
            Failure::new(Exit::DataFolder, message).hint("--data-dir names the folder of a broker")
        );
    }
    let _claim = match matches.get_flag("force-read") {
        true => None,
        false => Some(DataFolder::claim(&folder).map_err(|failure| {
            failure.detail(
                "--force-read reads it all the same, without the lock; what it shows may be torn",
            )
        })?),
    };
    on_shard(move |shard| async move { job.show(&shard, &folder).await })
}

fn sources(matches: &ArgMatches) -> Sources {
    let flag = matches.get_one::<String>("data-dir").cloned();
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Sources {
        flags: flag.into_iter().map(|folder| ("data_dir".to_owned(), folder)).collect(),
        environment: environment.collect(),
        file: matches.get_one::<PathBuf>("config").cloned(),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Job {
    parts: Vec<String>,
    wal: InspectOptions,
    batches: bool,
}

impl Job {
    fn read(matches: &ArgMatches) -> Job {
        let parts = matches.get_many::<String>("part").unwrap_or_default().cloned().collect();
        Job {
            parts,
            wal: InspectOptions {
                frames: matches.get_flag("frames"),
                records: matches.get_flag("records"),
                group: matches.get_one("group").copied().map(GroupId),
            },
            batches: matches.get_flag("batches"),
        }
    }

    async fn show(&self, shard: &Shard, folder: &Path) -> Result<(), Failure> {
        let data =
            shard.open_dir(folder).await.map_err(|error| unreadable("data folder", error))?;
        let layout = Layout::load(&data).await.map_err(|error| unreadable("layout", error))?;
        for part in PARTS {
            if !self.parts.is_empty() && !self.parts.iter().any(|wanted| wanted == part) {
                continue;
            }
            print(&format!("== {part}\n"));
            match part {
                "node" => show_node(&data, layout.as_ref()).await?,
                "metadata" => show_metadata(shard, &data, layout.as_ref()).await?,
                "wal" => self.show_wal(shard, &data, layout.as_ref()).await?,
                _ => self.show_segments(&data).await?,
            }
        }
        Ok(())
    }

    async fn show_wal(
        &self,
        shard: &Shard,
        data: &Dir,
        layout: Option<&Layout>,
    ) -> Result<(), Failure> {
        let Some(layout) = layout else { return nothing() };
        for number in 0..layout.shards {
            print(&format!("shard {number}\n"));
            let Some(dir) = log_folder(data, layout, number).await? else {
                nothing()?;
                continue;
            };
            let shown = wal::inspect::inspect(shard, &dir, self.wal, |line| {
                print(&format!("  {line}\n"));
            });
            let what = format!("write-ahead log of shard {number}");
            shown.await.map_err(|error| unreadable(&what, error))?;
        }
        Ok(())
    }

    async fn show_segments(&self, data: &Dir) -> Result<(), Failure> {
        let failed = |error| unreadable("segments", error);
        let Some(topics) = subfolder(data, shards::storage::FOLDER).await? else {
            return nothing();
        };
        let mut any = false;
        for topic in folders(&topics).await? {
            let dir = topics.open_subdir(&topic).await.map_err(failed)?;
            for number in folders(&dir).await? {
                let dir = dir.open_subdir(&number).await.map_err(failed)?;
                let identity = PartitionIdentity::of_folders(&topic, &number);
                for base in inspect_list(&dir).await.map_err(failed)? {
                    any = true;
                    print(&format!("topic {topic} partition {number} segment {base}\n"));
                    let report = inspect_segment(&dir, identity.as_ref(), base, |batch| {
                        if self.batches {
                            print(&format!("  {}\n", describe_batch(batch)));
                        }
                    });
                    print(&describe_segment(&report.await.map_err(failed)?));
                }
            }
        }
        match any {
            true => Ok(()),
            false => nothing(),
        }
    }
}

fn unreadable(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::DataFolder, format!("{what}: {error}"))
        .hint("is this the data folder of a broker of this version, and readable by this user?")
}

fn nothing() -> Result<(), Failure> {
    print("nothing yet\n");
    Ok(())
}

async fn subfolder(dir: &Dir, name: &str) -> Result<Option<Dir>, Failure> {
    match dir.open_subdir(name).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(name, error)),
    }
}

/// The folders within a folder, by name; numbers by value.
async fn folders(dir: &Dir) -> Result<Vec<String>, Failure> {
    let entries = dir.list().await.map_err(|error| unreadable("folder", error))?;
    let folders = entries.into_iter().filter(|entry| entry.is_dir);
    let mut names: Vec<String> = folders.map(|entry| entry.name).collect();
    names.sort_by_key(|name| (name.parse::<i64>().unwrap_or(i64::MAX), name.clone()));
    Ok(names)
}

async fn show_node(data: &Dir, layout: Option<&Layout>) -> Result<(), Failure> {
    match layout {
        Some(layout) => print(&format!(
            "layout: node {}, generation {}, {} shards\n",
            hyphens(&layout.node),
            layout.generation,
            layout.shards
        )),
        None => print("layout: nothing yet\n"),
    }
    let failed = |error| unreadable(NODE_FILE, error);
    if !data.exists(NODE_FILE).await.map_err(failed)? {
        return nothing();
    }
    let text = data.read(NODE_FILE).await.map_err(failed)?;
    print(&String::from_utf8_lossy(&text));
    Ok(())
}

/// The metadata as a start would find it: the snapshot that counts, and the log after it.
async fn show_metadata(shard: &Shard, data: &Dir, layout: Option<&Layout>) -> Result<(), Failure> {
    let log = match layout {
        Some(layout) => log_folder(data, layout, META_SHARD.0).await?,
        None => None,
    };
    let Some(log) = log else { return nothing() };
    let failed = |error| unreadable("metadata", error);
    let Some(found) = metadata(shard, data, &log).await.map_err(failed)? else { return nothing() };
    let snapshot = found.snapshot.as_deref().unwrap_or("no snapshot");
    let (index, commands) = (found.index, found.commands);
    print(&format!("{snapshot}, {commands} commands of the log after it, up to index {index}\n"));
    if let Some(damage) = &found.damage {
        print(&format!("DAMAGE: {damage}\n"));
    }
    print(&describe_image(&found.image));
    Ok(())
}

/// The folder of one shard's log in the generation that counts.
async fn log_folder(data: &Dir, layout: &Layout, shard: u16) -> Result<Option<Dir>, Failure> {
    let Some(wal) = subfolder(data, "wal").await? else { return Ok(None) };
    let generation = layout.generation.to_string();
    let Some(generation) = subfolder(&wal, &generation).await? else { return Ok(None) };
    subfolder(&generation, &shard.to_string()).await
}

fn describe_image(image: &Image) -> String {
    let mut out = format!(
        "  version {}, cluster {}, feature level {}\n",
        image.version(),
        image.cluster_id(),
        image.feature_level()
    );
    for broker in image.brokers() {
        let places = broker
            .endpoints
            .iter()
            .map(|endpoint| format!("{}://{}:{}", endpoint.name, endpoint.host, endpoint.port));
        out += &format!("  broker {} {} at {}\n", broker.id, broker.uuid, list(places));
    }
    for (resource, configs) in image.configured() {
        for (name, value) in configs.iter() {
            out += &format!("  {resource:?}: {name} = {value}\n");
        }
    }
    let mut table = Table::new(&["TOPIC", "ID", "PARTITION", "GROUP", "REPLICAS"]);
    for topic in image.topics() {
        for (name, value) in topic.configs.iter() {
            out += &format!("  topic {}: {name} = {value}\n", topic.name);
        }
        for (number, partition) in topic.partitions.iter().enumerate() {
            table.row([
                topic.name.to_string(),
                hyphens(topic.id.0.as_bytes()),
                number.to_string(),
                partition.group.to_string(),
                list(partition.replicas.iter().map(|replica| replica.node)),
            ]);
        }
    }
    out + &table.to_string()
}

fn describe_batch(batch: &BatchReport) -> String {
    let head = &batch.head;
    let index = batch.index.map_or(String::new(), |index| format!(" index {index}"));
    let damaged = if batch.intact { "" } else { " DAMAGED" };
    format!(
        "batch at {} offsets {} to {} epoch {}{index}, {} bytes, crc {:08x}{damaged}",
        batch.position,
        head.base_offset,
        head.next_offset().0 - 1,
        head.epoch,
        head.length,
        head.crc,
    )
}

fn describe_segment(report: &SegmentReport) -> String {
    let mut out = format!(
        "  {} batches up to offset {}, {} of {} bytes, index of {} entries\n",
        report.batches, report.next_offset, report.end, report.file_bytes, report.index_entries
    );
    let closed = match &report.map {
        Ok(map) if map.closed.is_some() => match report.is_whole() {
            true => "closed and whole".to_owned(),
            false => "closed, and NOT whole".to_owned(),
        },
        Ok(_) => "active".to_owned(),
        Err(reason) => format!("its map is not readable: {reason}"),
    };
    out += &format!("  {closed}\n");
    if let Some(foreign) = &report.foreign {
        out += &format!("  DAMAGE: {foreign}\n");
    }
    if report.damaged > 0 {
        out += &format!("  DAMAGE: the checksum of {} batches is wrong\n", report.damaged);
    }
    if let Some(stop) = &report.stop {
        out += &format!("  the batches end early: {stop}\n");
    }
    if let Some(fault) = &report.index_fault {
        out += &format!("  DAMAGE: index: {fault}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_details_are_named() {
        let read = |arguments: &[&str]| {
            let arguments = std::iter::once("inspect").chain(arguments.iter().copied());
            command().try_get_matches_from(arguments).map(|matches| Job::read(&matches))
        };
        assert!(read(&[]).unwrap().parts.is_empty());
        let asked = read(&["wal", "node", "--records", "--group", "0"]).unwrap();
        assert_eq!(asked.parts, ["wal", "node"]);
        assert_eq!((asked.wal.records, asked.wal.group), (true, Some(GroupId(0))));
        assert!(read(&["segment"]).is_err());
    }

    #[test]
    fn an_empty_image_reads_as_such() {
        assert_eq!(
            describe_image(&Image::empty()),
            "  version 0, cluster AAAAAAAAAAAAAAAAAAAAAA, feature level 0\nTOPIC  ID  PARTITION  \
             GROUP  REPLICAS\n"
        );
    }
}
