//! UpdateFeatures (key 57), versions 0 to 2. KIP-584, KIP-1022.
//!
//! There is one level to be at: naming it succeeds, and nothing else is possible.

use kafka_protocol::messages::update_features_request::{FeatureUpdateKey, UpdateFeaturesRequest};
use kafka_protocol::messages::update_features_response::{
    UpdatableFeatureResult, UpdateFeaturesResponse,
};
use net::ErrorCode;

use super::admin::Admin;
use super::api_versions::{METADATA_VERSION, METADATA_VERSION_MIN};
use super::errors::Refusal;
use crate::meta::FEATURE_LEVEL;

pub fn handle<A: Admin>(
    admin: &A,
    version: i16,
    request: &UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let current = admin.image().feature_level();
    let results: Vec<(&FeatureUpdateKey, Result<(), Refusal>)> =
        request.feature_updates.iter().map(|asked| (asked, update(asked, current))).collect();
    let response = UpdateFeaturesResponse::default().with_error_message(None);
    if version >= 2 {
        // One answer for all of them: the first refusal.
        return match results.into_iter().find_map(|(_, result)| result.err()) {
            None => response,
            Some(refusal) => {
                response.with_error_code(refusal.code.code()).with_error_message(refusal.text())
            }
        };
    }
    let results = results.into_iter().map(|(asked, result)| {
        let answer = UpdatableFeatureResult::default()
            .with_feature(asked.feature.clone())
            .with_error_message(None);
        match result {
            Ok(()) => answer,
            Err(refusal) => {
                answer.with_error_code(refusal.code.code()).with_error_message(refusal.text())
            }
        }
    });
    response.with_results(results.collect())
}

fn update(asked: &FeatureUpdateKey, current: i16) -> Result<(), Refusal> {
    let (feature, level) = (asked.feature.as_str(), asked.max_version_level);
    let refuse = |why: String| {
        let message = format!("Invalid update version {level} for feature {feature}. {why}");
        Err(Refusal::new(ErrorCode::InvalidUpdateVersion, message))
    };
    if feature != METADATA_VERSION {
        return refuse("This broker does not support this feature.".to_owned());
    }
    if level != current {
        return refuse(format!(
            "This broker supports versions {METADATA_VERSION_MIN}-{FEATURE_LEVEL}, and the cluster \
             is at {current}."
        ));
    }
    Ok(())
}
