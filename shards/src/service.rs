//! From a decoded request to its handler: the one table of what this broker serves.
//!
//! A [`Service`] is what the connections of one shard call. It is stateless; the handlers it
//! calls reach the shard through the [`Broker`].

use std::future::Future;

use kafka_protocol::messages::RequestKind;
use net::{Answer, ApiKey, HttpAnswer, HttpRequest, LocalFuture, Request};

use crate::api;
use crate::broker::Broker;

pub struct Service {
    broker: Broker,
}

impl Service {
    pub fn new(broker: Broker) -> Service {
        Service { broker }
    }

    /// Notes in the metrics what errors the client is told.
    fn counting(
        &self,
        api: ApiKey,
        answering: impl Future<Output = Answer> + 'static,
    ) -> LocalFuture<Answer> {
        let broker = self.broker.clone();
        Box::pin(async move {
            let answer = answering.await;
            if let Answer::Message(response) = &answer {
                let mut note = |code| broker.stats().told(api, code);
                api::error_codes::each(response, &mut note);
            }
            answer
        })
    }
}

impl net::Service for Service {
    fn call(&self, mut request: Request) -> LocalFuture<Answer> {
        let (broker, key) = (self.broker.clone(), request.api_key);
        let body =
            std::mem::replace(&mut request.body, RequestKind::ApiVersions(Default::default()));
        match body {
            RequestKind::Produce(body) => api::produce::handle(broker, request, body),
            RequestKind::Fetch(body) => Box::pin(api::fetch::handle(broker, request, body)),
            RequestKind::ListOffsets(body) => {
                self.counting(key, api::list_offsets::handle(broker, request, body))
            }
            RequestKind::OffsetForLeaderEpoch(body) => {
                self.counting(key, api::offset_for_leader_epoch::handle(broker, request, body))
            }
            RequestKind::DeleteRecords(body) => {
                self.counting(key, api::delete_records::handle(broker, request, body))
            }
            RequestKind::DescribeProducers(body) => {
                self.counting(key, api::describe_producers::handle(broker, request, body))
            }
            RequestKind::DescribeLogDirs(body) => {
                self.counting(key, api::describe_log_dirs::handle(broker, request, body))
            }
            RequestKind::InitProducerId(body) => {
                self.counting(key, api::init_producer_id::handle(broker, request, body))
            }
            other => self.counting(key, groups_and_admin(broker, request, other)),
        }
    }

    fn http(&self, request: HttpRequest) -> LocalFuture<HttpAnswer> {
        Box::pin(crate::http::handle(self.broker.clone(), request))
    }
}

/// Everything else: groups, metadata and administration.
async fn groups_and_admin(broker: Broker, request: Request, body: RequestKind) -> Answer {
    let (context, version) = (&request.context, request.version);
    let client_id = request.client_id.as_ref();
    let body = match api::groups::answer(&broker, context, client_id, version, body).await {
        Ok(response) => return Answer::Message(response),
        Err(body) => body,
    };
    match api::admin::answer(&broker, context, version, body).await {
        Ok(response) => Answer::Message(response),
        Err(_) => Answer::Close { reason: "the registry lets through what no handler serves" },
    }
}
