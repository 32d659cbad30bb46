//! Which nodes hold new partitions. Pure functions, any shard.
//!
//! Leaders are spread evenly over the brokers, counting those of all clients' topics; the other
//! replicas follow the leader around the ring of broker ids. So the first topic of nodes 1, 2, 3
//! with three partitions and three replicas lies on 1,2,3 / 2,3,1 / 3,1,2.

use std::collections::BTreeMap;

use net::ErrorCode;

use super::errors::Refusal;
use crate::meta::{Assignment, Image, NodeId};

/// Places `partitions` new partitions on `replicas` brokers each.
pub(super) fn place(
    image: &Image,
    partitions: usize,
    replicas: i16,
) -> Result<Vec<Assignment>, Refusal> {
    let brokers: Vec<NodeId> = image.brokers().map(|broker| broker.id).collect();
    let wanted = usize::try_from(replicas).unwrap_or_default();
    if wanted > brokers.len() || brokers.is_empty() {
        let message = format!(
            "Unable to replicate the partition {replicas} time(s): The target replication factor of \
             {replicas} cannot be reached because only {} broker(s) are registered.",
            brokers.len()
        );
        return Err(Refusal::new(ErrorCode::InvalidReplicationFactor, message));
    }
    let mut leads = leaderships(image, &brokers);
    let assignments = (0..partitions).map(|_| {
        let least = (0..brokers.len()).min_by_key(|at| leads[*at]).expect("there are brokers");
        leads[least] += 1;
        brokers.iter().cycle().skip(least).take(wanted).copied().collect()
    });
    Ok(assignments.collect())
}

/// How many partitions of clients' topics each broker is the preferred leader of.
fn leaderships(image: &Image, brokers: &[NodeId]) -> Vec<usize> {
    let mut leads: BTreeMap<NodeId, usize> = BTreeMap::new();
    for topic in image.topics().filter(|topic| !topic.is_internal()) {
        for partition in &topic.partitions {
            if let Some(preferred) = partition.replicas.first() {
                *leads.entry(preferred.node).or_default() += 1;
            }
        }
    }
    brokers.iter().map(|node| leads.get(node).copied().unwrap_or_default()).collect()
}

/// Checks the replicas that a client chose for one partition.
pub(super) fn check_manual(image: &Image, nodes: &[NodeId]) -> Result<(), Refusal> {
    let refuse = |message: String| Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
    if nodes.is_empty() {
        return refuse(
            "The manual partition assignment includes an empty replica list.".to_owned(),
        );
    }
    let mut sorted = nodes.to_vec();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return refuse(format!(
            "The manual partition assignment includes the broker {} more than once.",
            twice[0]
        ));
    }
    if let Some(stranger) = sorted.iter().find(|node| image.broker(**node).is_none()) {
        return refuse(format!(
            "The manual partition assignment includes broker {stranger}, but no such broker is \
             registered."
        ));
    }
    Ok(())
}
