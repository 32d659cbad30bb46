import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.UUID;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** The Java client against a running broker: administration, an idempotent producer, two members of a group. */
public final class Client {
    private static final int COUNT = 5000;

    private final String broker;
    private final String topic = "java-" + UUID.randomUUID();
    private final String group = "group-" + topic;

    private Client(String broker) {
        this.broker = broker;
    }

    public static void main(String[] arguments) throws Exception {
        new Client(arguments[0]).run();
        System.out.println("java: done");
    }

    private void run() throws Exception {
        try (Admin admin = Admin.create(Map.<String, Object>of("bootstrap.servers", broker))) {
            create(admin);
            administer(admin, exchange());
        }
    }

    private void create(Admin admin) throws Exception {
        NewTopic wanted = new NewTopic(topic, 2, (short) 1).configs(Map.of("retention.ms", "7200000"));
        var answer = admin.createTopics(List.of(wanted));
        answer.all().get();
        expect(answer.numPartitions(topic).get() == 2, "the answer names two partitions");
        expect(answer.config(topic).get().entries().size() >= 30, "the answer names every configuration");
        try {
            admin.createTopics(List.of(wanted)).all().get();
            expect(false, "a topic was created twice");
        } catch (ExecutionException error) {
            expect(error.getCause() instanceof TopicExistsException, error.toString());
        }
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all().get();
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        var config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
        expect(config.get("retention.ms").value().equals("7200000"), "retention.ms as created");
        expect(config.get("max.message.bytes").value().equals("1048588"), "max.message.bytes by default");
        expect(admin.describeCluster().nodes().get().size() == 1, "one node");
    }

    private Map<Integer, Long> produce() throws Exception {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", broker);
        settings.put("linger.ms", 5);
        settings.put("compression.type", "lz4");
        Map<Integer, Long> next = new HashMap<>();
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            expect(producer.partitionsFor(topic).size() == 3, "three partitions");
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = 0; i < COUNT; i++) {
                sent.add(producer.send(new ProducerRecord<>(topic, "key" + i % 23, Integer.toString(i))));
            }
            for (var future : sent) {
                RecordMetadata metadata = future.get();
                long expected = next.getOrDefault(metadata.partition(), 0L);
                expect(metadata.offset() == expected, metadata + " instead of " + expected);
                next.put(metadata.partition(), expected + 1);
            }
        }
        return next;
    }

    private KafkaConsumer<String, String> member() {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", broker);
        settings.put("group.id", group);
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", false);
        settings.put("max.poll.records", 200);
        settings.put(
                "partition.assignment.strategy",
                "org.apache.kafka.clients.consumer.CooperativeStickyAssignor");
        return new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
    }

    /**
     * Two members share the partitions first, and the records are sent then, so that no rebalance comes between: the
     * members see every value exactly once. Returns the end of each partition.
     */
    private Map<Integer, Long> exchange() throws Exception {
        try (var one = member(); var two = member()) {
            var members = List.of(one, two);
            members.forEach(member -> member.subscribe(List.of(topic)));
            long deadline = System.currentTimeMillis() + 40_000;
            while (one.assignment().isEmpty()
                    || two.assignment().isEmpty()
                    || one.assignment().size() + two.assignment().size() != 3) {
                expect(System.currentTimeMillis() < deadline, "both members have partitions");
                members.forEach(member -> member.poll(Duration.ofMillis(100)));
            }
            Map<Integer, Long> produced = produce();
            Set<Integer> seen = new TreeSet<>();
            while (seen.size() < COUNT) {
                expect(System.currentTimeMillis() < deadline, seen.size() + " of " + COUNT + " values");
                for (var member : members) {
                    for (ConsumerRecord<String, String> record : member.poll(Duration.ofMillis(100))) {
                        expect(seen.add(Integer.valueOf(record.value())), record.value() + " came twice");
                    }
                }
            }
            members.forEach(KafkaConsumer::commitSync);
            return produced;
        }
    }

    private void administer(Admin admin, Map<Integer, Long> produced) throws Exception {
        Map<TopicPartition, OffsetSpec> latest = new HashMap<>();
        for (int partition = 0; partition < 3; partition++) {
            latest.put(new TopicPartition(topic, partition), OffsetSpec.latest());
        }
        var ends = admin.listOffsets(latest).all().get();
        Map<TopicPartition, OffsetAndMetadata> committed =
                admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        for (var entry : ends.entrySet()) {
            long expected = produced.getOrDefault(entry.getKey().partition(), 0L);
            expect(entry.getValue().offset() == expected, "end of " + entry);
            if (expected > 0) {
                expect(committed.get(entry.getKey()).offset() == expected, "committed of " + entry.getKey());
            }
        }
        var state = admin.describeConsumerGroups(List.of(group)).all().get().get(group).groupState();
        expect(state == GroupState.EMPTY, "the group is " + state);
        admin.deleteConsumerGroups(List.of(group)).all().get();
        admin.deleteTopics(List.of(topic)).all().get();
    }

    private static void expect(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }
}
