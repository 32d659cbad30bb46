//! The one table from our errors to Kafka's codes. Pure functions, any shard.

use kafka_protocol::protocol::StrBytes;
use net::ErrorCode;

use super::admin::SubmitError;
use crate::config::ConfigError;
use crate::meta::MetaError;

/// A code and what to tell the user about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub code: ErrorCode,
    pub message: Option<String>,
}

impl Refusal {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal { code, message: Some(message.into()) }
    }

    /// A code that speaks for itself: clients fill in their own words.
    pub fn bare(code: ErrorCode) -> Refusal {
        Refusal { code, message: None }
    }

    pub fn text(&self) -> Option<StrBytes> {
        self.message.clone().map(StrBytes::from_string)
    }
}

impl From<ConfigError> for Refusal {
    fn from(error: ConfigError) -> Refusal {
        use ConfigError as E;
        let code = match error {
            E::UnknownTopicConfig(_)
            | E::UnknownBrokerConfig(_)
            | E::UnknownGroupConfig(_)
            | E::Value { .. }
            | E::NullAtCreation(_)
            | E::NotAList { .. }
            | E::BrokerAppend(_)
            | E::CompactionLags { .. }
            | E::TieredStorage
            | E::GroupLimit { .. }
            | E::MetricsMatch(_) => ErrorCode::InvalidConfig,
            E::UnknownClientMetricsConfig(_)
            | E::BrokerValue { .. }
            | E::Null(_)
            | E::DuplicateKeys
            | E::UnknownOperation(_)
            | E::Static(_)
            | E::PerBrokerOnly(_)
            | E::MetricsInterval(_) => ErrorCode::InvalidRequest,
        };
        Refusal::new(code, error.to_string())
    }
}

impl From<MetaError> for Refusal {
    fn from(error: MetaError) -> Refusal {
        use MetaError as E;
        let code = match error {
            E::TopicExists { .. } => ErrorCode::TopicAlreadyExists,
            E::TopicCollides { .. } => ErrorCode::InvalidTopicException,
            E::UnknownTopic(_) => return Refusal::bare(ErrorCode::UnknownTopicOrPartition),
            E::BadAssignment { .. } | E::UnknownBroker(_) => ErrorCode::InvalidReplicaAssignment,
            E::PartitionCountChanged { .. } => ErrorCode::InvalidPartitions,
            E::BrokerIdTaken { .. } => ErrorCode::DuplicateBrokerRegistration,
            E::FeatureLevel { .. } => ErrorCode::InvalidUpdateVersion,
            E::BrokerInUse(_) | E::AlreadyFounded => ErrorCode::InvalidRequest,
            E::UnknownGroup(_) | E::TopicIdInUse(_) | E::ProducerIdsExhausted => {
                ErrorCode::UnknownServerError
            }
        };
        Refusal::new(code, error.to_string())
    }
}

impl From<SubmitError> for Refusal {
    fn from(error: SubmitError) -> Refusal {
        match error {
            SubmitError::Refused(error) => error.into(),
            SubmitError::TimedOut => Refusal::bare(ErrorCode::RequestTimedOut),
            // Retriable: the client asks again, here or at another broker.
            SubmitError::Unavailable(why) => Refusal::new(ErrorCode::NotController, why),
        }
    }
}
