//! From a client's changes of one resource to the changes that go into `__meta`.
//!
//! Pure functions, any shard. The list that APPEND and SUBTRACT start from is the one that the
//! handler's image shows; two clients that append at the same moment can overwrite each other, as
//! they can in Kafka.

use std::collections::BTreeSet;

use super::broker;
use super::definition::{elements, Definition, Type};
use super::error::ConfigError;
use super::layers::BrokerView;
use super::{client_metrics, group, topic};
use crate::meta::{ConfigChange, Configs};

/// One change as it came: a key and what to do with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub name: String,
    pub operation: i8,
    pub value: Option<String>,
}

/// Kafka's operations of IncrementalAlterConfigs.
pub const SET: i8 = 0;
pub const DELETE: i8 = 1;
pub const APPEND: i8 = 2;
pub const SUBTRACT: i8 = 3;

/// What is altered, with what was set on it before.
pub enum Target<'a> {
    Topic { set: &'a Configs, brokers: &'a BrokerView<'a> },
    Broker { set: &'a Configs, brokers: &'a BrokerView<'a> },
    AllBrokers { set: &'a Configs },
    Group { set: &'a Configs },
    ClientMetrics { set: &'a Configs },
}

/// Changes some keys and leaves the others.
pub fn incremental(
    target: &Target<'_>,
    changes: &[Change],
) -> Result<Vec<ConfigChange>, ConfigError> {
    check_shape(changes)?;
    let mut altered = Vec::new();
    for change in changes {
        let name = change.name.clone();
        let value = match change.operation {
            SET => change.value.clone(),
            DELETE => None,
            operation => Some(combined(target, change, operation == APPEND)?),
        };
        altered.push(ConfigChange { name, value });
    }
    validated(target, altered, false)
}

/// Sets exactly these keys; all others of the resource are removed.
pub fn replacing(
    target: &Target<'_>,
    configs: &[(String, Option<String>)],
) -> Result<Vec<ConfigChange>, ConfigError> {
    let as_set = |(name, value): &(String, Option<String>)| Change {
        name: name.clone(),
        operation: SET,
        value: value.clone(),
    };
    let changes: Vec<Change> = configs.iter().map(as_set).collect();
    check_shape(&changes)?;
    let changes = changes.into_iter().map(|c| ConfigChange { name: c.name, value: c.value });
    validated(target, changes.collect(), true)
}

/// What can be said without knowing the resource.
fn check_shape(changes: &[Change]) -> Result<(), ConfigError> {
    let names: BTreeSet<&str> = changes.iter().map(|change| change.name.as_str()).collect();
    if names.len() != changes.len() {
        return Err(ConfigError::DuplicateKeys);
    }
    if let Some(unknown) = changes.iter().find(|c| !(SET..=SUBTRACT).contains(&c.operation)) {
        return Err(ConfigError::UnknownOperation(unknown.operation));
    }
    let without_value: Vec<&str> = changes
        .iter()
        .filter(|change| change.value.is_none() && change.operation != DELETE)
        .map(|change| change.name.as_str())
        .collect();
    if !without_value.is_empty() {
        return Err(ConfigError::Null(without_value.join(",")));
    }
    Ok(())
}

/// The list after APPEND or SUBTRACT. It starts from the effective value, so that appending
/// `compact` to a default of `delete` gives both.
fn combined(target: &Target<'_>, change: &Change, append: bool) -> Result<String, ConfigError> {
    let name = change.name.as_str();
    let current = target.effective_list(name).ok_or_else(|| match target {
        Target::Broker { .. } | Target::AllBrokers { .. } => {
            ConfigError::BrokerAppend(name.to_owned())
        }
        _ => ConfigError::NotAList {
            operation: if append { "APPEND" } else { "SUBTRACT" },
            name: name.to_owned(),
        },
    })?;
    let given = elements(change.value.as_deref().unwrap_or_default());
    let mut list = elements(&current);
    if append {
        for element in given {
            if !list.contains(&element) {
                list.push(element);
            }
        }
    } else {
        list.retain(|element| !given.contains(element));
    }
    Ok(list.join(","))
}

fn validated(
    target: &Target<'_>,
    mut changes: Vec<ConfigChange>,
    replace: bool,
) -> Result<Vec<ConfigChange>, ConfigError> {
    // Topics, groups and subscriptions are checked as a whole, since keys bind each other; of a
    // broker only what changes, since an old value may have become read-only.
    let mut whole = match target {
        Target::Broker { .. } | Target::AllBrokers { .. } => Configs::new(),
        _ if replace => Configs::new(),
        _ => Configs::clone(target.set()),
    };
    for change in &changes {
        match &change.value {
            Some(value) => whole.insert(change.name.clone(), value.clone()),
            None => whole.remove(&change.name),
        };
    }
    let checked = match target {
        Target::Topic { .. } => topic::validate(&whole)?,
        Target::Broker { .. } => broker::validate(&whole, true)?,
        Target::AllBrokers { .. } => broker::validate(&whole, false)?,
        Target::Group { .. } => group::validate(&whole)?,
        Target::ClientMetrics { .. } => client_metrics::validate(&whole)?,
    };
    for change in &mut changes {
        if change.value.is_some() {
            change.value = checked.get(&change.name).cloned();
        }
    }
    Ok(changes)
}

impl Target<'_> {
    fn set(&self) -> &Configs {
        match self {
            Target::Topic { set, .. }
            | Target::Broker { set, .. }
            | Target::AllBrokers { set }
            | Target::Group { set }
            | Target::ClientMetrics { set } => set,
        }
    }

    /// The effective value of a key if it is a list.
    fn effective_list(&self, name: &str) -> Option<String> {
        let is_list = |definition: &Definition| definition.kind == Type::List;
        let own = || self.set().get(name).cloned();
        match self {
            Target::Topic { set, brokers } => {
                topic::definition(name).filter(|d| is_list(d))?;
                let described = topic::describe(set, brokers);
                described.into_iter().find(|d| d.definition.name == name)?.value
            }
            Target::Broker { brokers, .. } => {
                let definition = broker::definition(name).filter(|d| is_list(d))?;
                brokers.value(definition).map(str::to_owned)
            }
            Target::AllBrokers { .. } => {
                let definition = broker::definition(name).filter(|d| is_list(d))?;
                own().or_else(|| definition.default.map(str::to_owned))
            }
            // Kafka knows no list among these (the client metrics' own lists are none to it).
            Target::Group { .. } | Target::ClientMetrics { .. } => None,
        }
    }
}
