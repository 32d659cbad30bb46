//! Membership changes: the two forms as one, their text form, and equality of memberships.
//!
//! Pure functions over the messages; the names are those by which raft-rs calls them.

use std::borrow::Cow;

use crate::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};

/// A membership change in either form.
pub trait ConfChangeI {
    /// The change in its newer form.
    fn into_v2(self) -> ConfChangeV2;

    /// The change in its newer form, borrowed where it is in that form already.
    fn as_v2(&self) -> Cow<'_, ConfChangeV2>;

    /// The change in its older form, if it is in that form.
    fn as_v1(&self) -> Option<&ConfChange>;
}

impl ConfChangeI for ConfChange {
    fn into_v2(self) -> ConfChangeV2 {
        ConfChangeV2 {
            changes: vec![new_conf_change_single(self.node_id, self.change_type())],
            context: self.context,
            ..ConfChangeV2::default()
        }
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        Cow::Owned(self.clone().into_v2())
    }

    fn as_v1(&self) -> Option<&ConfChange> {
        Some(self)
    }
}

impl ConfChangeI for ConfChangeV2 {
    fn into_v2(self) -> ConfChangeV2 {
        self
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        Cow::Borrowed(self)
    }

    fn as_v1(&self) -> Option<&ConfChange> {
        None
    }
}

impl ConfChangeV2 {
    /// Whether the change goes through a joint configuration: `Some(left automatically)` if so.
    /// A change of more than one step always does.
    pub fn enter_joint(&self) -> Option<bool> {
        match self.transition() {
            ConfChangeTransition::Explicit => Some(false),
            ConfChangeTransition::Implicit => Some(true),
            ConfChangeTransition::Auto => (self.changes.len() > 1).then_some(true),
        }
    }

    /// Whether the change leaves a joint configuration: it has no steps, and names no transition.
    pub fn leave_joint(&self) -> bool {
        self.transition() == ConfChangeTransition::Auto && self.changes.is_empty()
    }
}

/// One step of a change.
pub fn new_conf_change_single(node_id: u64, change_type: ConfChangeType) -> ConfChangeSingle {
    ConfChangeSingle { change_type: change_type as i32, node_id }
}

/// Reads steps from text: `v3` makes 3 a voter, `l3` a learner, `r3` removes it; spaces between.
pub fn parse_conf_change(text: &str) -> Result<Vec<ConfChangeSingle>, String> {
    text.split_ascii_whitespace().map(parse_step).collect()
}

fn parse_step(step: &str) -> Result<ConfChangeSingle, String> {
    let unknown = || format!("unknown step {step:?}: want v, l or r and a replica id");
    let change_type = match step.as_bytes().first() {
        Some(b'v') => ConfChangeType::AddNode,
        Some(b'l') => ConfChangeType::AddLearnerNode,
        Some(b'r') => ConfChangeType::RemoveNode,
        _ => return Err(unknown()),
    };
    let node_id = step[1..].parse().map_err(|_| unknown())?;
    Ok(new_conf_change_single(node_id, change_type))
}

/// The text that `parse_conf_change` reads.
pub fn stringify_conf_change(steps: &[ConfChangeSingle]) -> String {
    let texts: Vec<String> = steps
        .iter()
        .map(|step| {
            let letter = match step.change_type() {
                ConfChangeType::AddNode => 'v',
                ConfChangeType::AddLearnerNode => 'l',
                ConfChangeType::RemoveNode => 'r',
            };
            format!("{letter}{}", step.node_id)
        })
        .collect();
    texts.join(" ")
}

/// Whether two memberships are the same, whatever the order of their ids.
#[must_use]
pub fn conf_state_eq(left: &ConfState, right: &ConfState) -> bool {
    same_ids(&left.voters, &right.voters)
        && same_ids(&left.learners, &right.learners)
        && same_ids(&left.voters_outgoing, &right.voters_outgoing)
        && same_ids(&left.learners_next, &right.learners_next)
        && left.auto_leave == right.auto_leave
}

fn same_ids(left: &[u64], right: &[u64]) -> bool {
    left == right
        || (left.iter().all(|id| right.contains(id)) && right.iter().all(|id| left.contains(id)))
}
