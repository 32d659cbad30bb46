//! Where a value comes from: set on the topic, on this broker, on all brokers, by the operator, or
//! by default. Pure values, any shard.

use std::sync::Arc;

use super::broker::{self, Settings};
use super::definition::Definition;
use crate::meta::{ConfigResource, Configs, Image, NodeId};

/// Kafka's numbers for the origin of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum Source {
    Topic = 1,
    Broker = 2,
    AllBrokers = 3,
    Operator = 4,
    Default = 5,
    ClientMetrics = 7,
    Group = 8,
}

/// One of the places that a value could come from; the first of a list is the one that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    pub name: &'static str,
    pub value: String,
    pub source: Source,
}

/// What is set on brokers, as one broker sees it.
#[derive(Clone)]
pub struct BrokerView<'a> {
    settings: &'a Settings,
    own: Option<&'a Arc<Configs>>,
    all: Option<&'a Arc<Configs>>,
}

impl<'a> BrokerView<'a> {
    /// The view of the broker whose settings these are.
    pub fn new(settings: &'a Settings, image: &'a Image) -> BrokerView<'a> {
        let node: NodeId = settings.node();
        BrokerView {
            settings,
            own: image.configs(&ConfigResource::Broker(node)),
            all: image.configs(&ConfigResource::AllBrokers),
        }
    }

    /// The value of one broker key, defaults included; `None` is Kafka's null.
    pub fn value(&self, definition: &'static Definition) -> Option<&'a str> {
        let name = definition.name;
        let set = |configs: Option<&'a Arc<Configs>>| configs.and_then(|c| c.get(name));
        set(self.own)
            .or_else(|| set(self.all))
            .or_else(|| self.settings.set().get(name))
            .map(String::as_str)
            .or(definition.default)
    }

    /// All values that a chain of synonymous broker keys has, strongest first: first by source, and
    /// within a source by the chain's order. A chain with a null default (`log.retention.ms`, which
    /// falls back to minutes and hours) hides its fallback's default while nothing is set.
    pub fn synonyms(&self, chain: &[&'static str]) -> Vec<Synonym> {
        let definitions = || chain.iter().filter_map(|name| broker::definition(name));
        let layers: [(Option<&Configs>, Source); 3] = [
            (self.own.map(Arc::as_ref), Source::Broker),
            (self.all.map(Arc::as_ref), Source::AllBrokers),
            (Some(self.settings.set()), Source::Operator),
        ];
        let mut found = Vec::new();
        for (configs, source) in layers {
            for definition in definitions() {
                if let Some(value) = configs.and_then(|c| c.get(definition.name)) {
                    found.push(Synonym { name: definition.name, value: value.clone(), source });
                }
            }
        }
        let falls_back = definitions().next().is_some_and(|d| d.default.is_none());
        if !(falls_back && found.is_empty()) {
            found.extend(definitions().filter_map(|d| {
                let value = d.default?.to_owned();
                Some(Synonym { name: d.name, value, source: Source::Default })
            }));
        }
        found
    }
}
