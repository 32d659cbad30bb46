// Go's two Kafka clients against a running broker: franz-go and segmentio/kafka-go.
//
//	go run . franz-go HOST:PORT
//	go run . kafka-go HOST:PORT
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"sort"
	"strconv"
	"time"

	segmentio "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const count = 2000

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: go run . franz-go|kafka-go HOST:PORT")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 80*time.Second)
	defer cancel()
	clients := map[string]func(context.Context, string) error{"franz-go": franz, "kafka-go": kafkaGo}
	client, known := clients[os.Args[1]]
	if !known {
		log.Fatalf("no such client: %s", os.Args[1])
	}
	if err := client(ctx, os.Args[2]); err != nil {
		log.Fatalf("%s: %v", os.Args[1], err)
	}
	fmt.Printf("%s: done\n", os.Args[1])
}

// complete reports what is missing from, or doubled in, the numbers 0 to count-1.
func complete(got []int) error {
	sort.Ints(got)
	for i, n := range got {
		if i != n {
			return fmt.Errorf("got %d values, and at %d stands %d", len(got), i, n)
		}
	}
	if len(got) != count {
		return fmt.Errorf("got %d of %d values", len(got), count)
	}
	return nil
}

func franz(ctx context.Context, broker string) error {
	topic := fmt.Sprintf("franz-%d", time.Now().UnixNano())
	group := "group-" + topic
	producer, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.DefaultProduceTopic(topic),
		kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	if err != nil {
		return err
	}
	defer producer.Close()
	admin := kadm.NewClient(producer)
	if _, err := admin.CreateTopic(ctx, 3, 1, nil, topic); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if _, err := admin.CreateTopic(ctx, 3, 1, nil, topic); !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("a second create answered %v", err)
	}
	var records []*kgo.Record
	for i := range count {
		n := strconv.Itoa(i)
		records = append(records, &kgo.Record{Key: []byte(strconv.Itoa(i % 13)), Value: []byte(n),
			Headers: []kgo.RecordHeader{{Key: "n", Value: []byte(n)}}})
	}
	if err := producer.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	consumer, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics(topic),
		kgo.ConsumerGroup(group), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer consumer.Close()
	var got []int
	for len(got) < count {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("after %d values: %w", len(got), err)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			n, err := strconv.Atoi(string(record.Value))
			if err != nil || string(record.Headers[0].Value) != string(record.Value) {
				n = -1
			}
			got = append(got, n)
		})
	}
	if err := complete(got); err != nil {
		return err
	}
	if err := consumer.CommitUncommittedOffsets(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	consumer.LeaveGroup()
	lag, err := admin.Lag(ctx, group)
	if err != nil {
		return err
	}
	if total := lag[group].Lag.Total(); total != 0 || lag[group].State != "Empty" {
		return fmt.Errorf("lag %d in state %s", total, lag[group].State)
	}
	if _, err := admin.DeleteGroup(ctx, group); err != nil {
		return fmt.Errorf("delete group: %w", err)
	}
	_, err = admin.DeleteTopic(ctx, topic)
	return err
}

func kafkaGo(ctx context.Context, broker string) error {
	topic := fmt.Sprintf("segmentio-%d", time.Now().UnixNano())
	connection, err := segmentio.DialContext(ctx, "tcp", broker)
	if err != nil {
		return err
	}
	defer connection.Close()
	if err := connection.CreateTopics(segmentio.TopicConfig{Topic: topic, NumPartitions: 2, ReplicationFactor: 1}); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	writer := &segmentio.Writer{Addr: segmentio.TCP(broker), Topic: topic, RequiredAcks: segmentio.RequireAll,
		Balancer: &segmentio.Hash{}, Compression: segmentio.Snappy, BatchTimeout: 10 * time.Millisecond}
	var messages []segmentio.Message
	for i := range count {
		messages = append(messages, segmentio.Message{Key: []byte(strconv.Itoa(i % 7)), Value: []byte(strconv.Itoa(i))})
	}
	if err := writer.WriteMessages(ctx, messages...); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := writer.Close(); err != nil {
		return err
	}
	reader := segmentio.NewReader(segmentio.ReaderConfig{Brokers: []string{broker}, Topic: topic,
		GroupID: "group-" + topic, StartOffset: segmentio.FirstOffset, MaxWait: 200 * time.Millisecond})
	defer reader.Close()
	var got []int
	var last segmentio.Message
	for len(got) < count {
		message, err := reader.FetchMessage(ctx)
		if err != nil {
			return fmt.Errorf("after %d values: %w", len(got), err)
		}
		n, err := strconv.Atoi(string(message.Value))
		if err != nil {
			return err
		}
		got, last = append(got, n), message
	}
	if err := complete(got); err != nil {
		return err
	}
	if err := reader.CommitMessages(ctx, last); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return connection.DeleteTopics(topic)
}
