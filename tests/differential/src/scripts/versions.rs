//! kafka.md section 2: what is advertised, and how questions about it are answered.

use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};

use crate::message;
use crate::pair::Pair;

pub fn script(pair: &mut Pair) {
    advertised(pair);
    features(pair);
    questions(pair);
}

/// API by API, so that each that is absent is a difference of its own.
fn advertised(pair: &mut Pair) {
    let [kafka, here] = pair.advertised();
    let range = |answer: &ApiVersionsResponse, key: i16| {
        let found = answer.api_keys.iter().find(|api| api.api_key == key);
        found.map_or("absent".into(), |api| format!("{}-{}", api.min_version, api.max_version))
    };
    for key in 0..200 {
        let (a, b) = (range(&kafka, key), range(&here, key));
        let name = ApiKey::try_from(key).map_or(key.to_string(), |key| format!("{key:?}"));
        pair.compare_values("advertised", &name, a, b);
    }
}

fn features(pair: &mut Pair) {
    let answers = pair.advertised();
    let supported = |name: &str| {
        answers.each_ref().map(|answer| {
            let found = answer.supported_features.iter().find(|one| &*one.name == name);
            found.map_or("absent".into(), |one| format!("{}-{}", one.min_version, one.max_version))
        })
    };
    let finalised = |name: &str| {
        answers.each_ref().map(|answer| {
            let found = answer.finalized_features.iter().find(|one| &*one.name == name);
            found.map_or("absent".into(), |one| {
                format!("{}-{}", one.min_version_level, one.max_version_level)
            })
        })
    };
    let names = [
        "metadata.version",
        "transaction.version",
        "group.version",
        "share.version",
        "streams.version",
        "eligible.leader.replicas.version",
        "kraft.version",
    ];
    for name in names {
        let [a, b] = supported(name);
        pair.compare_values("supported feature", name, a, b);
        let [a, b] = finalised(name);
        pair.compare_values("finalised feature", name, a, b);
    }
    let [a, b] = answers.each_ref().map(|answer| answer.zk_migration_ready.to_string());
    pair.compare_values("answer", "zk_migration_ready", a, b);
}

fn questions(pair: &mut Pair) {
    let asking = |name: &str, version: &str| {
        message!(ApiVersionsRequest {
            client_software_name: name,
            client_software_version: version,
        })
    };
    for (name, version) in
        [("", "1"), ("a", ""), ("a b", "1"), ("-a", "1"), ("a-", "1"), ("a", "1_"), ("ä", "1")]
    {
        for v in [3, 4] {
            pair.ask(&format!("software '{name}' '{version}'"), v, |_| asking(name, version));
        }
    }
    // Versions that neither knows: the answer is compared as bytes, since it has the form of
    // version 0. Correlation id 5, no client id, no tagged fields.
    for version in [5i16, 99, -1] {
        let mut frame = vec![0, 0, 0, 11, 0, 18];
        frame.extend_from_slice(&version.to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0, 5, 0xff, 0xff, 0]);
        pair.raw(&format!("ApiVersions v{version}"), &frame);
    }
}
