"""confluent-kafka against a running broker: the life of a topic, an idempotent producer, a group."""

import sys
import time
import uuid

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic

COUNT = 2000


def main(broker):
    topic = "confluent-" + uuid.uuid4().hex
    admin = AdminClient({"bootstrap.servers": broker})
    admin.create_topics([NewTopic(topic, 3, 1, config={"retention.ms": "3600000"})])[topic].result(20)
    try:
        admin.create_topics([NewTopic(topic, 3, 1)])[topic].result(20)
        raise AssertionError("a topic was created twice")
    except KafkaException as error:
        assert error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS, error
    admin.create_partitions([NewPartitions(topic, 4)])[topic].result(20)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    config = admin.describe_configs([resource])[resource].result(20)
    assert config["retention.ms"].value == "3600000", config["retention.ms"]
    assert len(config) >= 30, len(config)

    delivered, refused = {}, []

    def report(error, message):
        if error:
            refused.append(error)
        else:
            delivered.setdefault(message.partition(), []).append(message.offset())

    producer = Producer({"bootstrap.servers": broker, "enable.idempotence": True, "linger.ms": 5})
    for i in range(COUNT):
        producer.produce(topic, key=str(i % 17), value=str(i), headers={"n": str(i)}, callback=report)
        producer.poll(0)
    assert producer.flush(30) == 0
    assert not refused, refused[:3]
    for partition, offsets in delivered.items():
        assert offsets == list(range(len(offsets))), f"partition {partition}: {offsets[:10]}"

    group = "group-" + topic
    settings = {
        "bootstrap.servers": broker,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    consumer = Consumer(settings)
    consumer.subscribe([topic])
    got, deadline = [], time.time() + 40
    while len(got) < COUNT and time.time() < deadline:
        message = consumer.poll(1.0)
        if message is None:
            continue
        assert message.error() is None, message.error()
        assert dict(message.headers())["n"] == message.value()
        got.append(int(message.value()))
    assert sorted(got) == list(range(COUNT)), f"{len(got)} of {COUNT}, {len(set(got))} different"
    consumer.commit(asynchronous=False)
    consumer.close()

    again = Consumer(settings)
    committed = again.committed([TopicPartition(topic, p) for p in range(4)], timeout=20)
    assert sum(max(c.offset, 0) for c in committed) == COUNT, committed
    low, high = again.get_watermark_offsets(TopicPartition(topic, 0), timeout=20)
    assert (low, high) == (0, len(delivered.get(0, []))), (low, high)
    first = again.offsets_for_times([TopicPartition(topic, 0, 0)], timeout=20)[0]
    assert first.offset == 0, first
    again.close()

    described = admin.describe_consumer_groups([group])[group].result(20)
    assert described.state.name == "EMPTY", described.state
    assert group in [g.group_id for g in admin.list_consumer_groups().result(20).valid]
    admin.delete_consumer_groups([group])[group].result(20)
    admin.delete_topics([topic])[topic].result(20)
    assert topic not in admin.list_topics(timeout=20).topics
    print("confluent-kafka: done")


if __name__ == "__main__":
    main(sys.argv[1])
