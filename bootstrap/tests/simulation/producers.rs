//! Producers: idempotent ones with five requests in flight over several partitions, plain ones
//! with one. Whatever fails is sent again over a new connection, in order, for ever.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use net::builder::BatchBuilder;
use net::client::Client;
use rt::Shard;

use crate::history::{Shared, Value};
use crate::wire::{self, name_of, Broken, Place, NO_ERROR};

/// Requests of one producer in flight, as Kafka's own have at most. It is also how many batches
/// of one partition are ever unanswered, and so what the broker must remember.
const IN_FLIGHT: usize = 5;
/// What an idempotent producer that keeps the rules is never told.
const SEQUENCE_ERRORS: [i16; 4] = [45, 46, 47, 59];

struct Unanswered {
    first: u32,
    count: u32,
    bytes: Bytes,
}

/// One partition's batches that have no answer; the first `sent` of them are on their way.
struct Lane {
    place: Place,
    window: VecDeque<Unanswered>,
    sent: usize,
}

struct Producer {
    shard: Shard,
    history: Shared,
    number: u32,
    /// None for a plain one.
    id: Option<i64>,
    in_flight: usize,
    lanes: Vec<Lane>,
}

pub async fn run(shard: Shard, address: SocketAddr, number: u32, history: Shared) {
    let (idempotent, places) = {
        let history = history.borrow();
        let own = &history.producers[number as usize];
        (own.idempotent, own.lanes.keys().copied().collect::<Vec<Place>>())
    };
    let lane = |place| Lane { place, window: VecDeque::new(), sent: 0 };
    let mut producer = Producer {
        shard: shard.clone(),
        history: history.clone(),
        number,
        id: None,
        in_flight: if idempotent { IN_FLIGHT } else { 1 },
        lanes: places.into_iter().map(lane).collect(),
    };
    loop {
        let mut client = wire::connect(&shard, address).await;
        if idempotent && producer.id.is_none() {
            producer.id = wire::init_producer(&shard, &mut client).await.ok();
            if producer.id.is_none() {
                continue;
            }
        }
        match producer.pump(&mut client).await {
            Ok(()) => break,
            Err(Broken) => shard.sleep(Duration::from_millis(30)).await,
        }
    }
    history.borrow_mut().finished += 1;
}

impl Producer {
    fn random(&self, below: u64) -> u64 {
        self.shard.random() % below
    }

    /// Sends what is unanswered again, then more, until the clients are to finish.
    async fn pump(&mut self, client: &mut Client) -> Result<(), Broken> {
        self.lanes.iter_mut().for_each(|lane| lane.sent = 0);
        let mut requests = 0;
        loop {
            while requests < self.in_flight {
                let batches = self.next_request();
                if batches.is_empty() {
                    break;
                }
                let request = wire::produce(batches);
                client.send(&request, wire::PRODUCE_VERSION).await.map_err(|_| Broken)?;
                requests += 1;
            }
            if requests == 0 {
                return Ok(());
            }
            let told = wire::produced(&self.shard, client).await?;
            requests -= 1;
            self.answered(&told)?;
            if self.random(4) == 0 {
                self.shard.sleep(Duration::from_micros(self.random(3000))).await;
            }
        }
    }

    /// A batch for each of some partitions; none if there is nothing to send.
    fn next_request(&mut self) -> Vec<(Place, Bytes)> {
        let finish = self.history.borrow().finish;
        let mut batches = Vec::new();
        for at in 0..self.lanes.len() {
            let room = self.lanes[at].window.len() < self.in_flight;
            if self.lanes[at].sent == self.lanes[at].window.len() && room && !finish {
                // Not every request goes to every partition.
                if self.lanes.len() == 1 || self.random(3) > 0 {
                    let next = self.next_batch(self.lanes[at].place);
                    self.lanes[at].window.push_back(next);
                }
            }
            let lane = &mut self.lanes[at];
            if let Some(unsent) = lane.window.get(lane.sent) {
                batches.push((lane.place, unsent.bytes.clone()));
                lane.sent += 1;
            }
        }
        batches
    }

    fn next_batch(&self, place: Place) -> Unanswered {
        let count = 1 + self.random(3) as u32;
        let first = {
            let producer = &mut self.history.borrow_mut().producers[self.number as usize];
            let lane = producer.lanes.entry(place).or_default();
            lane.sent += count;
            lane.sent - count
        };
        let mut builder = BatchBuilder::new();
        if let Some(id) = self.id {
            builder = builder.producer(id, 0, first as i32);
        }
        let now_ms = self.shard.wall_ms();
        for sequence in first..first + count {
            let (key, text) = Value { producer: self.number, place, sequence }.record();
            builder.push(now_ms, Some(key.as_bytes()), Some(text.as_bytes()), &[]);
        }
        Unanswered { first, count, bytes: builder.build().expect("a batch").bytes }
    }

    fn answered(&mut self, told: &[(Place, i16, i64)]) -> Result<(), Broken> {
        let mut outcome = Ok(());
        for &(place, code, offset) in told {
            let lane = self.lanes.iter_mut().find(|lane| lane.place == place).ok_or(Broken)?;
            let front = lane.window.front().ok_or(Broken)?;
            let mut history = self.history.borrow_mut();
            if code == NO_ERROR {
                let value = Value { producer: self.number, place, sequence: front.first };
                history.acknowledge(value, front.count, offset);
                lane.window.pop_front();
                lane.sent -= 1;
                continue;
            }
            if SEQUENCE_ERRORS.contains(&code) {
                // Everything before it was acknowledged, so the broker must know what is due.
                history.suspicion.get_or_insert_with(|| {
                    let (number, first, name) = (self.number, front.first, name_of(place));
                    format!("producer {number} is refused sequence {first} of {name}: {code}")
                });
            }
            history.refused = format!("produce to {}: {code}", name_of(place));
            outcome = Err(Broken);
        }
        outcome
    }
}
