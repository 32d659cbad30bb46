//! HTTP on the Kafka port: metrics and health.
//!
//! `/health/live`: this shard answers. `/health/ready`: every partition that is placed on this
//! node can be served, and it takes records. `/health`: both, with the reasons, as JSON.

use net::{HttpAnswer, HttpRequest};

use crate::broker::Broker;

const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

pub async fn handle(broker: Broker, request: HttpRequest) -> HttpAnswer {
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return HttpAnswer::text(405, "only GET is answered here\n");
    }
    match request.path.as_str() {
        "/metrics" => metrics(&broker).await,
        "/health/live" => HttpAnswer::text(200, "live\n"),
        "/health/ready" => ready(&broker).await,
        "/health" => health(&broker).await,
        _ => HttpAnswer::text(404, "try /metrics, /health, /health/live or /health/ready\n"),
    }
}

async fn metrics(broker: &Broker) -> HttpAnswer {
    let body = crate::observe::scrape(broker).await.into();
    HttpAnswer { status: 200, content_type: METRICS_TEXT, body }
}

async fn ready(broker: &Broker) -> HttpAnswer {
    let problems = problems(broker).await;
    if problems.is_empty() {
        return HttpAnswer::text(200, "ready\n");
    }
    HttpAnswer::text(503, format!("not ready: {}\n", problems.join("; ")))
}

async fn health(broker: &Broker) -> HttpAnswer {
    let problems = problems(broker).await;
    let status = if problems.is_empty() { "ready" } else { "degraded" };
    let body = serde_json::json!({
        "status": status,
        "node_id": broker.node_id().0,
        "cluster_id": broker.image().cluster_id(),
        "shards": broker.shard().count(),
        "problems": problems,
    });
    let code = if problems.is_empty() { 200 } else { 503 };
    HttpAnswer { status: code, content_type: JSON, body: format!("{body}\n").into() }
}

/// Why this node is not ready; empty if it is.
async fn problems(broker: &Broker) -> Vec<String> {
    let mut problems = Vec::new();
    if broker.is_stopping() {
        problems.push("the broker is stopping".to_owned());
    }
    if broker.is_disk_full() {
        problems.push("the disk has reached disk_reserve_bytes: produce is refused".to_owned());
    }
    let offline = broker.call_all(|broker| async move { broker.placement().offline().len() }).await;
    let offline: usize = offline.into_iter().sum();
    if offline > 0 {
        problems.push(format!("{offline} partition(s) are offline, see the log"));
    }
    problems
}
