//! From a decoded request to its handler: the one table of what this broker serves.
//!
//! A [`Service`] is what the connections of one shard call. It is stateless; the handlers it
//! calls reach the shard through the [`Broker`].

use kafka_protocol::messages::RequestKind;
use net::{Answer, HttpAnswer, HttpRequest, LocalFuture, Request};

use crate::api;
use crate::broker::Broker;

pub struct Service {
    broker: Broker,
}

impl Service {
    pub fn new(broker: Broker) -> Service {
        Service { broker }
    }
}

impl net::Service for Service {
    fn call(&self, mut request: Request) -> LocalFuture<Answer> {
        let broker = self.broker.clone();
        let body =
            std::mem::replace(&mut request.body, RequestKind::ApiVersions(Default::default()));
        match body {
            RequestKind::Produce(body) => api::produce::handle(broker, request, body),
            RequestKind::Fetch(body) => Box::pin(api::fetch::handle(broker, request, body)),
            RequestKind::ListOffsets(body) => {
                Box::pin(api::list_offsets::handle(broker, request, body))
            }
            RequestKind::OffsetForLeaderEpoch(body) => {
                Box::pin(api::offset_for_leader_epoch::handle(broker, request, body))
            }
            RequestKind::DeleteRecords(body) => {
                Box::pin(api::delete_records::handle(broker, request, body))
            }
            RequestKind::DescribeProducers(body) => {
                Box::pin(api::describe_producers::handle(broker, request, body))
            }
            RequestKind::DescribeLogDirs(body) => {
                Box::pin(api::describe_log_dirs::handle(broker, request, body))
            }
            RequestKind::InitProducerId(body) => {
                Box::pin(api::init_producer_id::handle(broker, request, body))
            }
            other => Box::pin(groups_and_admin(broker, request, other)),
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
