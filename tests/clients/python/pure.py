"""kafka-python against a running broker: a topic, a producer, a group, offsets, administration."""

import sys
import time
import uuid

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

COUNT = 1000


def main(broker):
    topic = "pure-" + uuid.uuid4().hex
    admin = KafkaAdminClient(bootstrap_servers=broker)
    admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)])

    producer = KafkaProducer(bootstrap_servers=broker, acks="all", linger_ms=5, compression_type="gzip")
    sent = [
        producer.send(topic, key=str(i % 7).encode(), value=str(i).encode(), headers=[("n", b"1")])
        for i in range(COUNT)
    ]
    producer.flush(30)
    offsets = {}
    for future in sent:
        metadata = future.get(10)
        offsets.setdefault(metadata.partition, []).append(metadata.offset)
    for partition, found in offsets.items():
        assert found == list(range(len(found))), f"partition {partition}: {found[:10]}"
    producer.close()

    group = "group-" + topic
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=broker,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    got, deadline = [], time.time() + 40
    while len(got) < COUNT and time.time() < deadline:
        for records in consumer.poll(1000).values():
            got += [int(record.value) for record in records]
    assert sorted(got) == list(range(COUNT)), f"{len(got)} of {COUNT}, {len(set(got))} different"
    consumer.commit()
    partitions = [TopicPartition(topic, p) for p in range(2)]
    assert sum(consumer.committed(p) or 0 for p in partitions) == COUNT
    ends = consumer.end_offsets(partitions)
    assert sum(ends.values()) == COUNT, ends
    assert all(offset == 0 for offset in consumer.beginning_offsets(partitions).values())
    consumer.close()

    assert topic in admin.list_topics()
    admin.delete_topics([topic])
    assert topic not in admin.list_topics()
    admin.close()
    print("kafka-python: done")


if __name__ == "__main__":
    main(sys.argv[1])
