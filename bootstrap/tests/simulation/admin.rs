//! Clients that administer: one deletes records, one makes topics come and go, one commits
//! offsets without being a member of its group.

use std::net::SocketAddr;
use std::time::Duration;

use net::client::Client;
use rt::Shard;

use crate::history::{Rule, Shared};
use crate::wire::{self, Broken, DELETED, NO_ERROR};

/// The group of [`committer`].
pub const PLAIN_GROUP: &str = "g";

/// Deletes records below the high watermark, as others were told it.
pub async fn deleter(shard: Shard, address: SocketAddr, history: Shared) {
    loop {
        let mut client = wire::connect(&shard, address).await;
        if deletions(&shard, &mut client, &history).await.is_ok() {
            break;
        }
        shard.sleep(Duration::from_millis(40)).await;
    }
    history.borrow_mut().finished += 1;
}

async fn deletions(shard: &Shard, client: &mut Client, history: &Shared) -> Result<(), Broken> {
    while !history.borrow().finish {
        shard.sleep(Duration::from_millis(20 + shard.random() % 200)).await;
        let floor = history.borrow().floor(DELETED);
        let left = floor.high_watermark - floor.log_start;
        if left <= 0 {
            continue;
        }
        let offset = floor.log_start + (shard.random() % left as u64) as i64;
        history.borrow_mut().asks_to_delete(DELETED, offset);
        let told = wire::delete_records(shard, client, DELETED, offset).await?;
        let mut history = history.borrow_mut();
        match told {
            Ok(log_start) if log_start < offset => {
                let what = format!("records up to {offset} were to go, they begin at {log_start}");
                history.violate(Rule::Diverged, what);
            }
            Ok(log_start) => history.told(DELETED, floor, floor.high_watermark, log_start),
            Err(code) => {
                history.refused = format!("delete records {code}");
                return Err(Broken);
            }
        }
    }
    Ok(())
}

/// Creates and deletes topics; what was acknowledged must be so until it is changed.
pub async fn churner(shard: Shard, address: SocketAddr, history: Shared) {
    let mut number = 0;
    loop {
        let mut client = wire::connect(&shard, address).await;
        if churn(&shard, &mut client, &history, &mut number).await.is_ok() {
            break;
        }
        // What was not answered may happen at any time yet: that name says nothing any more.
        number += 1;
        shard.sleep(Duration::from_millis(40)).await;
    }
    history.borrow_mut().finished += 1;
}

async fn churn(
    shard: &Shard,
    client: &mut Client,
    history: &Shared,
    number: &mut u32,
) -> Result<(), Broken> {
    while !history.borrow().finish {
        let known = history.borrow().topics.clone();
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        if !names.is_empty() {
            let there = wire::topics(shard, client, &names).await?;
            for (name, exists) in &known {
                if there.contains(name) != *exists {
                    let what = format!("topic {name}: acknowledged {exists}, now {}", !exists);
                    history.borrow_mut().violate(Rule::Diverged, what);
                }
            }
        }
        let name = format!("x{number}");
        // Unknown until it is answered.
        history.borrow_mut().topics.remove(&name);
        let create = !known.get(&name).copied().unwrap_or(false);
        let code = match create {
            true => wire::create_topic(shard, client, &name, 2, &[]).await?,
            false => wire::delete_topic(shard, client, &name).await?,
        };
        match code {
            NO_ERROR => {}
            code => {
                history.borrow_mut().refused = format!("topic {name}: {code}");
                return Err(Broken);
            }
        }
        history.borrow_mut().topics.insert(name, create);
        if !create || shard.random().is_multiple_of(3) {
            *number += 1;
        }
        shard.sleep(Duration::from_millis(10 + shard.random() % 150)).await;
    }
    Ok(())
}

/// Commits ever larger offsets of one group, and asks for them after every interruption.
pub async fn committer(shard: Shard, address: SocketAddr, history: Shared) {
    let mut next = 0;
    loop {
        let mut client = wire::connect(&shard, address).await;
        match commits(&shard, &mut client, &history, &mut next).await {
            Ok(()) => break,
            Err(Broken) => shard.sleep(Duration::from_millis(40)).await,
        }
    }
    history.borrow_mut().finished += 1;
}

async fn commits(
    shard: &Shard,
    client: &mut Client,
    history: &Shared,
    next: &mut i64,
) -> Result<(), Broken> {
    let code = wire::coordinator(shard, client, PLAIN_GROUP).await?;
    if code != NO_ERROR {
        history.borrow_mut().refused = format!("coordinator {code}");
        return Err(Broken);
    }
    loop {
        read_offset(shard, client, history, PLAIN_GROUP, 0).await?;
        if history.borrow().finish {
            return Ok(());
        }
        for _ in 0..1 + shard.random() % 4 {
            *next += 1;
            let at = {
                let mut history = history.borrow_mut();
                let life = history.lives;
                history.offsets.attempt(PLAIN_GROUP, 0, *next, life)
            };
            let code = wire::commit(shard, client, PLAIN_GROUP, None, (0, *next)).await?;
            if code != NO_ERROR {
                history.borrow_mut().refused = format!("commit {code}");
                return Err(Broken);
            }
            history.borrow_mut().offsets.acknowledged(PLAIN_GROUP, 0, at);
            shard.sleep(Duration::from_micros(shard.random() % 8000)).await;
        }
    }
}

/// A group's offset of a partition, checked against what it may be.
pub async fn read_offset(
    shard: &Shard,
    client: &mut Client,
    history: &Shared,
    group: &'static str,
    place: wire::Place,
) -> Result<i64, Broken> {
    let life = history.borrow().lives;
    let view = history.borrow().offsets.view(group, place, life);
    let offset = wire::committed(shard, client, group, place).await?;
    let mut history = history.borrow_mut();
    let outcome = history.offsets.fetched(group, place, &view, offset);
    history.check(outcome);
    Ok(offset)
}
