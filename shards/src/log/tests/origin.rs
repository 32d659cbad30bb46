//! Segments that are another partition's, and agree with it in all that is checked batch by batch.

use std::future::Future;
use std::time::Duration;

use rt::sim::{CrashKind, NodeId, World, WorldOptions};

use super::damage::damage_of;
use super::*;

/// The first two have batches of the same length, the third has shorter ones; all have as many.
const PAYLOADS: [(i32, usize); 3] = [(0, 1_500), (1, 1_500), (2, 1_480)];
/// The first of three closed segments, and the one that is written.
const CLOSED: i64 = 0;
const ACTIVE: i64 = 150;
/// Where the last batch of a closed segment begins, and of the sealed bytes of the other.
const LAST_CLOSED: u64 = 24 * 1_561;
const LAST_ACTIVE: u64 = 22 * 1_561;

type Life = Box<dyn FnOnce(Bench) -> Local<'static, ()>>;

/// A node whose partitions differ in nothing but what their records say.
struct Twins {
    world: World,
    node: NodeId,
    next: Rc<RefCell<Option<Life>>>,
    ended: Rc<Cell<bool>>,
}

impl Twins {
    fn filled() -> Twins {
        Twins::begun(|bench| async move {
            let mut partitions = Vec::new();
            for (number, payload_bytes) in PAYLOADS {
                let partition = bench.open(number, small_segments()).await;
                for n in 0..100 {
                    partition.batch(2, payload_bytes, 1_000 + n * 10);
                }
                partitions.push(partition);
            }
            bench.flusher.round().await.expect("a round");
        })
    }

    fn begun<F: Future<Output = ()> + 'static>(life: impl FnOnce(Bench) -> F + 'static) -> Twins {
        let world = World::new(78, WorldOptions::default());
        let (next, ended) = (Rc::<RefCell<Option<Life>>>::default(), Rc::new(Cell::new(false)));
        let (durable, lives, over): (Rc<Durable>, _, _) =
            (Rc::default(), Rc::clone(&next), Rc::clone(&ended));
        let node = world.add_node("broker", 1, move |shard| {
            let (durable, over) = (Rc::clone(&durable), Rc::clone(&over));
            let life = lives.borrow_mut().take();
            async move {
                let Some(life) = life else { return };
                let options = LogOptions { cache_bytes: 0, ..LogOptions::default() };
                life(Bench::start(shard, durable, options).await).await;
                over.set(true);
            }
        });
        let twins = Twins { world, node, next, ended };
        twins.live(life);
        twins
    }

    /// Another life of the node, from a power cut to the end of `life`.
    fn live<F: Future<Output = ()> + 'static>(&self, life: impl FnOnce(Bench) -> F + 'static) {
        *self.next.borrow_mut() = Some(Box::new(move |bench| Box::pin(life(bench))));
        self.ended.set(false);
        self.world.crash(self.node, CrashKind::PowerCut);
        self.world.restart(self.node);
        assert!(self.world.run_until(|_| self.ended.get(), Duration::from_secs(10)));
    }

    fn path(&self, number: i32, base: i64, suffix: &str) -> String {
        format!("/data/topics/{}/{number}/{base:020}.{suffix}", identity(number).topic_folder())
    }

    fn contents(&self, path: &str) -> Vec<u8> {
        self.world.disk(self.node).read_file(path).expect("it is there")
    }

    fn exchange(&self, numbers: [i32; 2], base: i64, suffix: &str) {
        let paths = numbers.map(|number| self.path(number, base, suffix));
        let [first, second] = [0, 1].map(|at| self.contents(&paths[at]));
        assert!(first != second, "they are of different partitions");
        let disk = self.world.disk(self.node);
        assert!(disk.write_file(&paths[0], &second) && disk.write_file(&paths[1], &first));
    }
}

/// Everything of the partition is served.
async fn is_whole(bench: &Bench, number: i32) {
    let partition = bench.open(number, small_segments()).await;
    partition.check_from(Offset(0), 4_000).await.expect("as it was written");
}

/// The closed segment is refused at every read, and the others are served.
async fn is_refused(bench: &Bench, number: i32, expected: impl Fn(&Damage) -> bool) {
    let partition = bench.open(number, small_segments()).await;
    for from in [0, 7, 49, 0] {
        let (offset, fault) = damage_of(partition.check_from(Offset(from), 4_000).await);
        assert!(offset == CLOSED && expected(&fault), "at {offset}: {fault}");
    }
    let time = partition.log.first_at_or_after(1_000, partition.log.log_end(), &WholeBatches);
    let (_, fault) = damage_of(time.await.map(|_| ()));
    assert!(expected(&fault) || matches!(fault, Damage::Map(_)), "by time: {fault}");
    partition.check_from(Offset(50), 4_000).await.expect("the others");
}

fn is_foreign(fault: &Damage) -> bool {
    matches!(fault, Damage::Foreign(_))
}

/// The last two differ in the length of their batches as well, and agree in offsets and epochs: the
/// length of a closed segment is that of its file.
#[test]
fn a_closed_segment_of_another_partition_is_refused_until_it_is_put_back() {
    for numbers in [[0, 1], [1, 2]] {
        let twins = Twins::filled();
        twins.exchange(numbers, CLOSED, "log");
        twins.live(move |bench| async move {
            for number in numbers {
                is_refused(&bench, number, is_foreign).await;
            }
            assert_eq!(bench.context.stats().index_rebuilds, 0, "the good index is kept");
        });
        twins.exchange(numbers, CLOSED, "log");
        twins.live(move |bench| async move {
            for number in numbers {
                is_whole(&bench, number).await;
            }
        });
    }
}

#[test]
fn a_closed_segment_that_was_overwritten_with_another_is_refused() {
    let twins = Twins::filled();
    let other = twins.contents(&twins.path(1, CLOSED, "log"));
    assert!(twins.world.disk(twins.node).write_file(twins.path(0, CLOSED, "log"), &other));
    twins.live(|bench| async move {
        is_refused(&bench, 0, is_foreign).await;
        is_whole(&bench, 1).await;
    });
}

#[test]
fn the_map_of_another_partition_or_segment_is_refused() {
    let twins = Twins::filled();
    // Their indexes are the same.
    for suffix in ["log", "map"] {
        twins.exchange([0, 1], CLOSED, suffix);
    }
    let map = twins.contents(&twins.path(2, CLOSED + 50, "map"));
    assert!(twins.world.disk(twins.node).write_file(twins.path(2, CLOSED, "map"), &map));
    twins.live(|bench| async move {
        let says = |text: &str| {
            let text = text.to_owned();
            move |fault: &Damage| *fault == Damage::Map(text.clone())
        };
        for number in [0, 1] {
            is_refused(&bench, number, says("belongs to another partition")).await;
        }
        is_refused(&bench, 2, says("belongs to segment 50")).await;
    });
}

/// A small file that is lost does not take the segment with it.
#[test]
fn without_its_map_a_segment_is_read_all_the_same() {
    let twins = Twins::filled();
    let disk = twins.world.disk(twins.node);
    assert!(disk.remove_file(twins.path(0, CLOSED, "map")));
    assert!(disk.flip_bits(twins.path(1, CLOSED, "map"), 9, 1));
    twins.live(|bench| async move {
        is_whole(&bench, 0).await;
        is_whole(&bench, 1).await;
    });
}

/// Wherever one bit has flipped in the batch that says whose the segment is: that batch is damaged,
/// and the segment is still this one.
#[test]
fn a_flipped_bit_in_the_last_batch_does_not_take_the_segment_with_it() {
    let twins = Twins::filled();
    for at in (0..61).chain([1_000]) {
        let flip = || {
            let disk = twins.world.disk(twins.node);
            let (closed, active) = (twins.path(0, CLOSED, "log"), twins.path(1, ACTIVE, "log"));
            assert!(disk.flip_bits(closed, LAST_CLOSED + at, 1));
            assert!(disk.flip_bits(active, LAST_ACTIVE + at, 1));
        };
        flip();
        twins.live(move |bench| async move {
            for (number, last) in [(0, 48), (1, ACTIVE + 44)] {
                let partition = bench.open(number, small_segments()).await;
                let (offset, fault) = damage_of(partition.check_from(Offset(0), 4_000).await);
                assert!(offset == last && !is_foreign(&fault), "byte {at}: {offset}: {fault}");
            }
        });
        flip();
    }
}

#[test]
fn an_active_segment_of_another_partition_is_refused_until_it_is_put_back() {
    let twins = Twins::filled();
    twins.exchange([0, 1], ACTIVE, "log");
    twins.live(|bench| async move {
        for number in [0, 1] {
            let refused = bench.try_open(number, small_segments()).await.err();
            let Some(OpenError::Segment { base_offset, what }) = refused else {
                panic!("it was opened: {refused:?}");
            };
            assert_eq!(base_offset, Offset(ACTIVE));
            assert!(what.contains("not the segment that was written here"), "{what}");
        }
        is_whole(&bench, 2).await;
    });
    twins.exchange([0, 1], ACTIVE, "log");
    twins.live(|bench| async move {
        is_whole(&bench, 0).await;
        is_whole(&bench, 1).await;
    });
}

/// What stands there is a part of a batch; in the end it would have been the other's beginning and
/// one's own end, and the WAL would have let go of it.
#[test]
fn a_segment_in_which_nothing_is_sealed_is_written_anew() {
    async fn append(bench: &Bench) -> [Partition; 2] {
        let open = async |number| {
            let partition = bench.open(number, small_segments()).await;
            partition.batch(1, 6_000, 1_000);
            partition
        };
        let partitions = [open(0).await, open(1).await];
        bench.flusher.round().await.expect("a round");
        partitions
    }
    let twins = Twins::begun(|bench| async move {
        append(&bench).await;
    });
    assert_eq!(twins.contents(&twins.path(0, 0, "log")).len(), 4_096);
    twins.exchange([0, 1], 0, "log");
    twins.live(|bench| async move {
        for partition in append(&bench).await {
            partition.check_from(Offset(0), 4_000).await.expect("as it was written");
        }
    });
}

#[test]
fn the_offline_reader_names_a_segment_of_another_partition() {
    let twins = Twins::filled();
    twins.exchange([0, 1], CLOSED, "log");
    twins.live(|bench| async move {
        let dir = bench.context.files.dir(&identity(0)).await.expect("a folder");
        let own = PartitionIdentity::of_folders(&identity(0).topic_folder(), "0");
        assert_eq!(own, Some(PartitionIdentity { owner: Owner::default(), ..identity(0) }));
        let report = inspect_segment(&dir, own.as_ref(), Offset(CLOSED), |_| ()).await.unwrap();
        assert!(report.foreign.is_some() && report.damaged == 0, "{report:?}");
        assert!(!report.is_whole());
        let report = inspect_segment(&dir, Some(&identity(1)), Offset(CLOSED), |_| ()).await;
        assert_eq!(report.unwrap().map, Err("belongs to another partition".to_owned()));
    });
}
