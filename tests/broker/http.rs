//! Health on the Kafka port, and requests that are not answered there.

use crate::support::http::{get, request};
use crate::support::wire::Wire;
use crate::support::Broker;

#[test]
fn health_is_answered_on_the_kafka_port() {
    let broker = Broker::start();
    for path in ["/health", "/health/live", "/health/ready"] {
        let answer = get(broker.port(), path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    assert_eq!(get(broker.port(), "/nothing").status, 404);
    assert_eq!(request(broker.port(), "POST", "/health").status, 405);
}

#[test]
fn an_admin_port_answers_http_alone_and_the_kafka_port_can_be_told_not_to() {
    let broker = Broker::start_with(&["--admin-port", "0", "--http-on-kafka-port", "false"]);
    broker.wait_for_line("metrics     http://localhost:");
    let log = broker.log();
    let (_, after) = log.split_once("metrics     http://localhost:").unwrap();
    let admin: u16 = after.split('/').next().unwrap().parse().unwrap();
    assert_ne!(admin, broker.port());
    assert_eq!(get(admin, "/health/ready").status, 200);
    assert!(get(admin, "/metrics").body.contains("cluster_size 1\n"));
    let mut http = Wire::connect(broker.port());
    http.send_raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    http.assert_closed("HTTP where it is switched off");
}
