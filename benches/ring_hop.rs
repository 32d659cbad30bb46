//! What does a message to another shard cost? There and back while the other shard sleeps, there and
//! back while both work, and one way in a stream that keeps the ring full.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use criterion::{Criterion, Throughput};
use rt::uring::{launch, Options};
use rt::{Mesh, Port, Shard, ShardId, Task};

const RING_MESSAGES: usize = 64;
/// Longer than a shard polls before it sleeps.
const UNTIL_ASLEEP: Duration = Duration::from_micros(500);

#[derive(Clone, Copy)]
enum Question {
    ThereAndBackAsleep,
    ThereAndBackBusy,
    Stream,
}

#[derive(Clone, Copy)]
enum Message {
    Echo,
    Ignore,
    /// Answered and the last one.
    End,
}

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring_hop");
    group.throughput(Throughput::Elements(1));
    for (name, question) in [
        ("there and back, the other asleep", Question::ThereAndBackAsleep),
        ("there and back, both busy", Question::ThereAndBackBusy),
        ("one way, in a stream", Question::Stream),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| between_two_shards(question, times));
        });
    }
    group.finish();
}

fn between_two_shards(question: Question, times: u64) -> Duration {
    let took = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&took);
    let running = launch(Options { shards: Some(2), cpus: None }, move |shard| {
        let slot = Arc::clone(&slot);
        async move {
            let mesh = shard.common(|| Mesh::<Message>::new(shard.count(), RING_MESSAGES));
            let port = mesh.join(&shard);
            let busy = matches!(question, Question::ThereAndBackBusy).then(|| keep_busy(&shard));
            if shard.id() == ShardId(0) {
                let took = ask(&shard, &port, question, times).await;
                *slot.lock().expect("no panic") = Some(took);
            } else {
                answer(&port).await;
            }
            drop(busy);
        }
    });
    running.and_then(|running| running.join()).expect("two shards");
    let took = took.lock().expect("no panic").take();
    took.expect("the first shard has measured")
}

fn keep_busy(shard: &Shard) -> Task<()> {
    let inner = shard.clone();
    shard.spawn(async move {
        loop {
            inner.yield_now().await;
        }
    })
}

async fn answer(port: &Port<Message>) {
    let back = port.sender(ShardId(0));
    loop {
        match port.recv().await.1 {
            Message::Ignore => {}
            Message::Echo => back.send(Message::Echo).await,
            Message::End => return back.send(Message::End).await,
        }
    }
}

async fn ask(shard: &Shard, port: &Port<Message>, question: Question, times: u64) -> Duration {
    let other = port.sender(ShardId(1));
    let mut took = Duration::ZERO;
    match question {
        Question::Stream => {
            let began = shard.now();
            for _ in 0..times {
                other.send(Message::Ignore).await;
            }
            other.send(Message::End).await;
            port.recv().await;
            return shard.now() - began;
        }
        Question::ThereAndBackAsleep | Question::ThereAndBackBusy => {
            for _ in 0..times {
                if matches!(question, Question::ThereAndBackAsleep) {
                    shard.sleep(UNTIL_ASLEEP).await;
                }
                let began = shard.now();
                other.send(Message::Echo).await;
                port.recv().await;
                took += shard.now() - began;
            }
        }
    }
    other.send(Message::End).await;
    port.recv().await;
    took
}
