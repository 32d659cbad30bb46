//! Consumers without a group: they follow all partitions, and begin again now and then.

use std::net::SocketAddr;
use std::time::Duration;

use kafka_protocol::messages::FetchResponse;
use net::client::Client;
use rt::Shard;

use crate::history::{Floor, History, Shared, Value};
use crate::wire::{self, Broken, Place, NO_ERROR, PLACES};

const OUT_OF_RANGE: i16 = 1;
const READ_MAX_BYTES: i32 = 16 << 10;

pub async fn run(shard: Shard, address: SocketAddr, number: u32, history: Shared) {
    let mut positions = [0; PLACES];
    let with_session = number.is_multiple_of(2);
    loop {
        let mut client = wire::connect(&shard, address).await;
        let mut session = (0, if with_session { 0 } else { -1 });
        while let Ok(next) = turn(&shard, &mut client, &mut positions, session, &history).await {
            if with_session {
                session = next;
            }
            if shard.random().is_multiple_of(16) {
                for (place, position) in positions.iter_mut().enumerate() {
                    *position = history.borrow().floor(place).log_start;
                }
            }
            shard.sleep(Duration::from_micros(shard.random() % 20_000)).await;
        }
        shard.sleep(Duration::from_millis(25)).await;
    }
}

/// One fetch; the session to go on with.
async fn turn(
    shard: &Shard,
    client: &mut Client,
    positions: &mut [i64; PLACES],
    session: (i32, i32),
    history: &Shared,
) -> Result<(i32, i32), Broken> {
    let floors: Vec<Floor> = (0..PLACES).map(|place| history.borrow().floor(place)).collect();
    let asked: Vec<(Place, i64)> = positions.iter().copied().enumerate().collect();
    let answer = wire::fetch(shard, client, &asked, session, READ_MAX_BYTES).await?;
    if answer.error_code != NO_ERROR {
        return Err(Broken);
    }
    let parts = parts(&answer, &asked, &floors, &mut history.borrow_mut());
    for part in parts {
        positions[part.place] = part.next;
        if part.code == OUT_OF_RANGE {
            let place = part.place;
            if let Ok(start) = wire::log_start(shard, client, place).await? {
                let mut history = history.borrow_mut();
                positions[place] = history.out_of_range(place, part.next, start);
            }
        }
    }
    Ok((answer.session_id, session.1 + 1))
}

/// What an answer tells of one partition.
pub struct Part {
    pub place: Place,
    pub code: i16,
    /// Where reading goes on.
    pub next: i64,
    pub values: Vec<(i64, Value)>,
    pub high_watermark: i64,
}

/// Checks a fetch's answer, and takes it apart.
pub fn parts(
    answer: &FetchResponse,
    asked: &[(Place, i64)],
    floors: &[Floor],
    history: &mut History,
) -> Vec<Part> {
    let mut parts = Vec::new();
    for topic in &answer.responses {
        for told in &topic.partitions {
            let place = wire::place_of(&topic.topic.0, told.partition_index);
            let item = asked.iter().zip(floors).find(|((asked, _), _)| Some(*asked) == place);
            let Some((&(place, position), &floor)) = item else { continue };
            let mut part = Part {
                place,
                code: told.error_code,
                next: position,
                values: Vec::new(),
                high_watermark: told.high_watermark,
            };
            if told.error_code == NO_ERROR {
                history.told(place, floor, told.high_watermark, told.log_start_offset);
                let bytes = told.records.clone().unwrap_or_default();
                (part.next, part.values) = history.records(place, position, floor, bytes);
                if part.next > told.high_watermark.max(position) {
                    let what = format!("{place} gave records past its high watermark");
                    history.violate(crate::history::Rule::Diverged, what);
                }
            }
            parts.push(part);
        }
    }
    parts
}
