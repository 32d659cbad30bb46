//! Client metrics subscriptions (KIP-714): accepted, validated, kept and described.
//!
//! No client is asked for metrics yet (the telemetry APIs are not advertised, as Kafka does not
//! without a plug-in), so they have no effect. Pure functions, any shard.

use super::definition::{elements, Definition, Effect, Rule, Type};
use super::error::ConfigError;
use super::layers::{Source, Synonym};
use super::topic::Described;
use crate::meta::Configs;

const EFFECT: Effect = Effect::None("clients are not asked for metrics");

/// By name.
static KEYS: [Definition; 3] = [
    Definition {
        name: "interval.ms",
        kind: Type::Int,
        default: Some("300000"),
        rule: Rule::Any,
        effect: EFFECT,
        documentation: "Time between two deliveries of a client's metrics, 100 ms to 1 hour.",
    },
    Definition {
        name: "match",
        kind: Type::List,
        default: Some(""),
        rule: Rule::Any,
        effect: EFFECT,
        documentation: "Which clients are meant: 'field=pattern' elements.",
    },
    Definition {
        name: "metrics",
        kind: Type::List,
        default: Some(""),
        rule: Rule::Any,
        effect: EFFECT,
        documentation: "Prefixes of the names of the metrics that are asked for.",
    },
];

/// What a `match` element may ask about.
const FIELDS: [&str; 6] = [
    "client_id",
    "client_instance_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

pub fn definitions() -> impl ExactSizeIterator<Item = &'static Definition> {
    KEYS.iter()
}

/// Checks all of a subscription's configurations and gives their canonical texts.
pub fn validate(configs: &Configs) -> Result<Configs, ConfigError> {
    let definition = |name: &str| KEYS.iter().find(|definition| definition.name == name);
    if let Some(name) = configs.keys().find(|name| definition(name).is_none()) {
        return Err(ConfigError::UnknownClientMetricsConfig(name.clone()));
    }
    configs
        .iter()
        .map(|(name, value)| {
            let definition = definition(name).expect("unknown names were refused above");
            let checked = definition.check(value)?;
            check(definition.name, &checked)?;
            Ok((name.clone(), checked))
        })
        .collect()
}

fn check(name: &str, value: &str) -> Result<(), ConfigError> {
    match name {
        "interval.ms" => match value.parse::<i64>() {
            Ok(ms) if !(100..=3_600_000).contains(&ms) => Err(ConfigError::MetricsInterval(ms)),
            _ => Ok(()),
        },
        "match" => {
            let known = |element: &&str| {
                element.split_once('=').is_some_and(|(field, _)| FIELDS.contains(&field.trim()))
            };
            match elements(value).into_iter().find(|element| !known(element)) {
                Some(element) => Err(ConfigError::MetricsMatch(element.to_owned())),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Describes every key of a subscription. A default has no synonyms here, as in Kafka.
pub fn describe(configs: &Configs) -> Vec<Described> {
    definitions()
        .map(|definition| match configs.get(definition.name) {
            Some(value) => {
                let (value, source) = (value.clone(), Source::ClientMetrics);
                let synonyms =
                    vec![Synonym { name: definition.name, value: value.clone(), source }];
                Described { definition, value: Some(value), source, read_only: false, synonyms }
            }
            None => Described {
                definition,
                value: definition.default.map(str::to_owned),
                source: Source::Default,
                read_only: false,
                synonyms: Vec::new(),
            },
        })
        .collect()
}
