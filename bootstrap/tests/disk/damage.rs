//! Bit rot: every kind of file, each way to be damaged, at many places.
//!
//! Each case starts a broker on a disk of which one file (two, where they are swapped) is not what
//! was written. The test prints a table of the outcomes.

use std::collections::BTreeMap;

use rt::sim::{CrashKind, DiskImage, NodeId, World};
use shards::log::BatchHead;

use crate::author::{self, Size, CLIENTS};
use crate::known::{Known, PARTITIONS};
use crate::pointers;
use crate::reader::{self, Outcome, Plan};

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Log,
    /// A log at the pointers to batches that stand nowhere but in their segment.
    Pointers,
    Spare,
    /// How far a log is known to reach.
    Reached,
    Segment,
    /// A segment at batches that only those pointers lead to.
    Staged,
    Map,
    Index,
    Snapshot,
    Layout,
    Node,
}

impl Kind {
    pub const ALL: [Kind; 11] = [
        Kind::Log,
        Kind::Pointers,
        Kind::Spare,
        Kind::Reached,
        Kind::Segment,
        Kind::Staged,
        Kind::Map,
        Kind::Index,
        Kind::Snapshot,
        Kind::Layout,
        Kind::Node,
    ];

    fn of(path: &str) -> Option<Kind> {
        let suffix = path.rsplit(['.', '/']).next()?;
        match suffix {
            "wal" => Some(Kind::Log),
            "spare" => Some(Kind::Spare),
            "reached" => Some(Kind::Reached),
            "log" => Some(Kind::Segment),
            "map" => Some(Kind::Map),
            "index" => Some(Kind::Index),
            "snapshot" => Some(Kind::Snapshot),
            "layout" => Some(Kind::Layout),
            "node" => Some(Kind::Node),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Log => "`*.wal`: log",
            Kind::Pointers => "`*.wal`: its pointers",
            Kind::Spare => "`*.spare`: log file to come",
            Kind::Reached => "`reached`: where a log ends",
            Kind::Segment => "`*.log`: segment",
            Kind::Staged => "`*.log`: its staged batches",
            Kind::Map => "`*.map`",
            Kind::Index => "`*.index`",
            Kind::Snapshot => "`meta/*.snapshot`",
            Kind::Layout => "`layout`",
            Kind::Node => "`node`",
        }
    }
}

/// How a file is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    Flip {
        position: u64,
        mask: u8,
    },
    Truncate {
        length: u64,
    },
    ZeroBlock {
        position: u64,
    },
    ZeroFrom {
        position: u64,
    },
    /// Its content and that of another file of its kind, exchanged.
    Swap {
        with: String,
    },
    /// The content of another file of its kind.
    Copy {
        from: String,
    },
    /// What stood there half a run before.
    Older,
    Remove,
    /// It, and all files of its folder whose names come after it.
    RemoveFrom,
    /// It, and its whole folder.
    RemoveFolder,
    /// It and its siblings in the folder, all but their headers turned to zeros.
    Empty,
}

impl Damage {
    pub const NAMES: [&'static str; 11] = [
        "one bit flipped",
        "truncated",
        "one block zeroed",
        "zeroed to its end",
        "swapped with a sibling",
        "overwritten with a sibling",
        "an older state of it",
        "removed",
        "removed with all that follow it",
        "removed with its folder",
        "emptied, as are its siblings",
    ];

    fn number(&self) -> usize {
        match self {
            Damage::Flip { .. } => 0,
            Damage::Truncate { .. } => 1,
            Damage::ZeroBlock { .. } => 2,
            Damage::ZeroFrom { .. } => 3,
            Damage::Swap { .. } => 4,
            Damage::Copy { .. } => 5,
            Damage::Older => 6,
            Damage::Remove => 7,
            Damage::RemoveFrom => 8,
            Damage::RemoveFolder => 9,
            Damage::Empty => 10,
        }
    }
}

/// Segments of two partitions.
pub struct Twins {
    pub paths: [String; 2],
    /// They are being written.
    pub active: bool,
}

/// All that is checked batch by batch; a checksum holds in either place.
fn heads(mut bytes: &[u8]) -> Vec<BatchHead> {
    let mut heads = Vec::new();
    while let Ok(head) = BatchHead::parse(bytes) {
        let Some(rest) = bytes.get(head.length as usize..) else { break };
        heads.push(BatchHead { crc: 0, ..head });
        bytes = rest;
    }
    heads
}

/// A run that is over, and its disk: after a kill, all frames confirmed and `reached`.
pub struct Ground {
    image: DiskImage,
    known: Known,
    files: BTreeMap<String, Vec<u8>>,
    older: BTreeMap<String, Vec<u8>>,
    spots: Spots,
}

/// Positions that every place of damage is chosen from, by kind and file.
type Spots = BTreeMap<(Kind, String), Vec<u64>>;

/// Where pointers stand, and the blocks that they lead to: those that were not in the segment
/// `before` the batches were staged.
fn spots(files: &BTreeMap<String, Vec<u8>>, before: &BTreeMap<String, Vec<u8>>) -> Spots {
    let mut spots = Spots::new();
    for live in pointers::live(files) {
        spots.entry((Kind::Pointers, live.path)).or_default().extend(live.at);
        let name = format!("/{:020}.log", live.pointer.segment);
        let staged = live.pointer.position..live.pointer.position + u64::from(live.pointer.length);
        for (path, bytes) in files.iter().filter(|(path, _)| path.ends_with(&name)) {
            let old = before.get(path).map_or(&[][..], |bytes| bytes);
            let new = |at: &u64| bytes.get(*at as usize) != old.get(*at as usize).or(Some(&0));
            let found: Vec<u64> = staged.clone().filter(new).collect();
            if !found.is_empty() {
                spots.entry((Kind::Staged, path.clone())).or_default().extend(found);
            }
        }
    }
    spots
}

pub fn contents(world: &World, node: NodeId) -> BTreeMap<String, Vec<u8>> {
    let disk = world.disk(node);
    let files = disk.files().into_iter();
    let read = |path: std::path::PathBuf| {
        let bytes = disk.read_file(&path)?;
        Some((path.to_string_lossy().into_owned(), bytes))
    };
    files.filter_map(read).collect()
}

impl Ground {
    pub fn new(seed: u64, size: Size) -> Ground {
        Ground::grown(seed, size, true)
    }

    /// Without batches that only the log points to.
    pub fn flushed(seed: u64, size: Size) -> Ground {
        Ground::grown(seed, size, false)
    }

    fn grown(seed: u64, size: Size, staged: bool) -> Ground {
        let (world, node, known) = author::world(seed, size);
        let half =
            |known: &Known| known.partitions.iter().all(|p| p.acknowledged > size.records / 2);
        let limit = std::time::Duration::from_secs(600);
        assert!(world.run_until(|_| half(&known.borrow()), limit), "{:?}", known.borrow());
        let older = contents(&world, node);
        assert!(
            world.run_until(|_| known.borrow().ended == CLIENTS, limit),
            "{:?}",
            known.borrow()
        );
        // A round of flushes, batches that no other one comes to, and the frames that confirm.
        world.run_for(std::time::Duration::from_secs(7));
        let flushed = contents(&world, node);
        if staged {
            known.borrow_mut().more = true;
            let ended = |known: &Known| known.ended == CLIENTS + PARTITIONS;
            assert!(world.run_until(|_| ended(&known.borrow()), limit), "{:?}", known.borrow());
        }
        // Within a second the logs say elsewhere how far they reach.
        world.run_for(std::time::Duration::from_secs(2));
        let known = known.borrow().clone();
        assert_eq!(known.failed, None);
        let (image, files) = (world.disk(node).after(CrashKind::Kill, 0), contents(&world, node));
        let spots = spots(&files, &flushed);
        Ground { image, known, files, older, spots }
    }

    /// Every file with what may happen to it; `more` times as many places as in a short run.
    pub fn cases(&self, more: usize) -> Vec<(String, Kind, Damage)> {
        let mut dice = fastrand(self.files.len() as u64);
        let mut cases = Vec::new();
        for kind in Kind::ALL {
            let files = self.of(kind);
            // Of many files of a kind every so many; the first and the last always.
            let step = files.len().div_ceil(4 * more).max(1);
            for (place, path) in files.iter().enumerate() {
                if place % step == 0 || place + 1 == files.len() {
                    let spots = self.spots.get(&(kind, (*path).clone())).map(Vec::as_slice);
                    let damages = match spots {
                        Some(spots) => self.damages_at(path, spots, more, &mut dice),
                        None => self.damages(path, &files, place, more, &mut dice),
                    };
                    cases.extend(damages.into_iter().map(|damage| ((*path).clone(), kind, damage)));
                }
            }
        }
        cases
    }

    pub fn of(&self, kind: Kind) -> Vec<&String> {
        match kind {
            Kind::Pointers | Kind::Staged => {
                self.spots.keys().filter(|(of, _)| *of == kind).map(|(_, path)| path).collect()
            }
            _ => self.files.keys().filter(|path| Kind::of(path) == Some(kind)).collect(),
        }
    }

    /// Some spots of a file that is damaged everywhere else by [`Ground::damages`].
    fn damages_at(
        &self,
        path: &str,
        spots: &[u64],
        more: usize,
        dice: &mut impl FnMut(u64) -> u64,
    ) -> Vec<Damage> {
        let any = |dice: &mut dyn FnMut(u64) -> u64| spots[dice(spots.len() as u64) as usize];
        let mut damages = Vec::new();
        for _ in 0..12 * more {
            damages.push(Damage::Flip { position: any(dice), mask: 1 << dice(8) });
        }
        for _ in 0..4 * more {
            damages.push(Damage::ZeroBlock { position: any(dice) / 4096 * 4096 });
            damages.push(Damage::Truncate { length: any(dice) });
        }
        if Kind::of(path) == Some(Kind::Segment) {
            damages.push(Damage::ZeroFrom { position: spots[0] / 4096 * 4096 });
        }
        damages
    }

    fn damages(
        &self,
        path: &str,
        files: &[&String],
        place: usize,
        more: usize,
        dice: &mut impl FnMut(u64) -> u64,
    ) -> Vec<Damage> {
        let bytes = &self.files[path];
        let length = bytes.len() as u64;
        let mut damages = vec![Damage::Remove];
        if length > 0 {
            damages
                .extend([0, 1, length / 2, length - 1].map(|length| Damage::Truncate { length }));
            damages.push(Damage::ZeroFrom { position: 0 });
            damages.push(Damage::ZeroFrom { position: length / 2 / 4096 * 4096 });
        }
        if Kind::of(path) == Some(Kind::Log) {
            // Nothing that is left of the log tells of what stood there.
            damages.extend([Damage::RemoveFrom, Damage::RemoveFolder, Damage::Empty]);
            let places = (4096..length).step_by(5 * 4096);
            let written = places.filter(|at| bytes[*at as usize] != 0);
            let written = written.map(|position| Damage::ZeroFrom { position });
            damages.extend(written);
        }
        let flips = if length <= 512 { length } else { 12 * more as u64 };
        let used: Vec<u64> = (0..length).filter(|at| bytes[*at as usize] != 0).collect();
        for number in 0..flips {
            let position = match length {
                ..=512 => number,
                // Zeros are most of some files: the bytes that say something come first.
                _ if number % 4 != 0 && !used.is_empty() => used[dice(used.len() as u64) as usize],
                _ => dice(length),
            };
            damages.push(Damage::Flip { position, mask: 1 << dice(8) });
        }
        for _ in 0..(2 * more).min(used.len()) {
            let position = used[dice(used.len() as u64) as usize] / 4096 * 4096;
            damages.push(Damage::ZeroBlock { position });
        }
        let mut siblings = vec![(place + 1) % files.len(), (place + files.len() / 2) % files.len()];
        // The same segment of another partition, and of another topic.
        let name = path.rsplit('/').next().unwrap_or_default();
        siblings.extend((0..files.len()).filter(|other| files[*other].ends_with(name)).take(4));
        siblings.sort_unstable();
        siblings.dedup();
        for sibling in siblings.into_iter().filter(|sibling| *sibling != place) {
            damages.push(Damage::Swap { with: files[sibling].clone() });
            damages.push(Damage::Copy { from: files[sibling].clone() });
        }
        if self.older.get(path).is_some_and(|older| older != bytes) {
            damages.push(Damage::Older);
        }
        damages
    }

    /// The pairs of segments of one topic that differ in nothing but what their records say.
    pub fn twins(&self) -> Vec<Twins> {
        // Name, partition, all before them.
        let parts = |path: &str| path.rsplitn(3, '/').map(str::to_owned).collect::<Vec<_>>();
        let segments = self.of(Kind::Segment);
        let newest = |path: &String| {
            let kind = Kind::of(path);
            self.beside(path).filter(|other| Kind::of(other) == kind).max() == Some(path)
        };
        let mut twins = Vec::new();
        for (place, first) in segments.iter().enumerate() {
            for second in &segments[place + 1..] {
                let (of, other) = (parts(first), parts(second));
                let [bytes, others] = [first, second].map(|path| &self.files[*path]);
                let alike =
                    (&of[0], &of[2]) == (&other[0], &other[2]) && heads(bytes) == heads(others);
                if alike && bytes != others {
                    let paths = [first, second].map(|path| (*path).clone());
                    twins.push(Twins { paths, active: newest(first) && newest(second) });
                }
            }
        }
        twins
    }

    /// The files of the folder that this one is in.
    fn beside(&self, path: &str) -> impl Iterator<Item = &String> {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        let of = move |path: &&String| path.rsplit_once('/').is_some_and(|(of, _)| of == folder);
        self.files.keys().filter(of)
    }

    /// The disk with that damage.
    fn damaged(&self, path: &str, damage: &Damage) -> DiskImage {
        let world = World::new(0, author::options());
        let node = world.add_node("disk", 1, |_| std::future::pending::<()>());
        let disk = world.disk(node);
        disk.replace(&self.image);
        let done = match damage {
            Damage::Flip { position, mask } => disk.flip_bits(path, *position, *mask),
            Damage::Truncate { length } => disk.truncate_file(path, *length),
            Damage::ZeroBlock { position } => {
                let left = self.files[path].len() as u64 - position;
                disk.overwrite(path, *position, &vec![0; left.min(4096) as usize])
            }
            Damage::ZeroFrom { position } => {
                let left = self.files[path].len() as u64 - position;
                disk.overwrite(path, *position, &vec![0; left as usize])
            }
            Damage::Swap { with } => {
                disk.write_file(path, &self.files[with]) && disk.write_file(with, &self.files[path])
            }
            Damage::Copy { from } => disk.write_file(path, &self.files[from]),
            Damage::Older => disk.write_file(path, &self.older[path]),
            Damage::Remove => disk.remove_file(path),
            Damage::RemoveFrom => {
                let kind = Kind::of(path);
                let later = |other: &&String| other.as_str() >= path && Kind::of(other) == kind;
                self.beside(path).filter(later).all(|path| disk.remove_file(path))
            }
            Damage::RemoveFolder => self.beside(path).all(|path| disk.remove_file(path)),
            Damage::Empty => {
                let mut logs = self.beside(path).filter(|other| Kind::of(other) == Kind::of(path));
                logs.all(|path| disk.overwrite(path, 4096, &vec![0; self.files[path].len() - 4096]))
            }
        };
        assert!(done, "{path}: {damage:?}");
        disk.after(CrashKind::Kill, 0)
    }

    pub fn run(&self, path: &str, damage: &Damage, seed: u64, plan: Plan) -> Outcome {
        reader::read(&self.damaged(path, damage), &self.known, seed, plan)
    }

    pub fn undamaged(&self, seed: u64) -> Outcome {
        reader::read(&self.image, &self.known, seed, Plan::default())
    }

    pub fn count(&self, kind: Kind) -> usize {
        self.of(kind).len()
    }
}

/// A small generator of the test's own, so that its choices do not shift the worlds'.
fn fastrand(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below.max(1)
    }
}

/// How often each outcome was seen.
#[derive(Default, Clone, Copy)]
struct Row {
    whole: usize,
    refused: usize,
    not_started: usize,
}

/// The outcomes, by kind of file and of damage.
#[derive(Default)]
pub struct Table(BTreeMap<(Kind, usize), Row>);

impl Table {
    pub fn add(&mut self, kind: Kind, damage: &Damage, outcome: &Outcome) {
        let row = self.0.entry((kind, damage.number())).or_default();
        match outcome {
            Outcome::NotStarted(_) => row.not_started += 1,
            _ if outcome.is_whole() => row.whole += 1,
            _ => row.refused += 1,
        }
    }

    /// In markdown.
    pub fn text(&self) -> String {
        let mut text = String::from(
            "| file | damage | cases | all is served | the damaged part is refused | no start |\n\
             |---|---|---|---|---|---|\n",
        );
        for ((kind, damage), row) in &self.0 {
            let Row { whole, refused, not_started } = row;
            let cases = whole + refused + not_started;
            let (kind, damage) = (kind.name(), Damage::NAMES[*damage]);
            let line =
                format!("| {kind} | {damage} | {cases} | {whole} | {refused} | {not_started} |");
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}
