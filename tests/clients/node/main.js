// KafkaJS (its own implementation of the protocol) against a running broker.
//
//   node main.js HOST:PORT
//
// Admin, produce with and without compression and idempotence, a group that reads everything once and goes on
// where it stopped, offsets by time, deletion. Ends with an exit status; every wait is bounded.
'use strict'

const assert = require('node:assert')
const { CompressionTypes, Kafka, KafkaJSProtocolError, logLevel } = require('kafkajs')

const [address] = process.argv.slice(2)
const suffix = `${Date.now()}-${process.pid}`
const topic = `node-${suffix}`
const kafka = new Kafka({ clientId: 'node-suite', brokers: [address], logLevel: logLevel.ERROR })
const RECORDS = 300

/** Reads `count` records in a group, commits them, and leaves. */
async function read(groupId, count) {
  const consumer = kafka.consumer({ groupId })
  const values = []
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  let enough
  const read = new Promise((resolve) => (enough = resolve))
  let late
  const limit = new Promise((_, reject) => {
    late = setTimeout(() => reject(new Error(`${values.length} of ${count} records`)), 30_000)
  })
  await consumer.run({
    eachMessage: async ({ partition, message }) => {
      values.push(message.value.toString())
      assert.strictEqual(message.headers.partition.toString(), String(partition))
      if (values.length === count) enough()
    },
  })
  await Promise.race([read, limit])
  clearTimeout(late)
  // Stopping commits what was read.
  await consumer.stop()
  await consumer.disconnect()
  return values.map(Number).sort((a, b) => a - b)
}

/** Produces the numbers from `from` up, over all partitions. */
async function send(from, options, compression) {
  const producer = kafka.producer(options)
  await producer.connect()
  const messages = []
  for (let number = from; number < from + RECORDS; number += 1) {
    const partition = number % 3
    const headers = { partition: String(partition) }
    messages.push({ partition, key: `k${number}`, value: String(number), headers })
  }
  const acknowledged = await producer.send({ topic, messages, compression, acks: -1 })
  assert.deepStrictEqual(acknowledged.map((one) => one.errorCode), [0, 0, 0])
  await producer.disconnect()
}

async function main() {
  const admin = kafka.admin()
  await admin.connect()
  const cluster = await admin.describeCluster()
  assert.strictEqual(cluster.brokers.length, 1)
  const configEntries = [{ name: 'retention.ms', value: '-1' }]
  assert(await admin.createTopics({ topics: [{ topic, numPartitions: 3, configEntries }] }))
  assert.strictEqual(await admin.createTopics({ topics: [{ topic, numPartitions: 3 }] }), false)
  const metadata = await admin.fetchTopicMetadata({ topics: [topic] })
  assert.strictEqual(metadata.topics[0].partitions.length, 3)

  const before = Date.now()
  await send(0, {}, CompressionTypes.None)
  await send(RECORDS, { idempotent: true, maxInFlightRequests: 1 }, CompressionTypes.GZIP)
  const numbers = (from, to) => Array.from({ length: to - from }, (_, number) => from + number)
  assert.deepStrictEqual(await read(`g-${suffix}`, 2 * RECORDS), numbers(0, 2 * RECORDS))
  await send(2 * RECORDS, {}, CompressionTypes.GZIP)
  assert.deepStrictEqual(await read(`g-${suffix}`, RECORDS), numbers(2 * RECORDS, 3 * RECORDS))

  const ends = await admin.fetchTopicOffsets(topic)
  assert.deepStrictEqual(ends.map((end) => end.offset), ['300', '300', '300'])
  const starts = await admin.fetchTopicOffsetsByTimestamp(topic, before)
  assert.deepStrictEqual(starts.map((start) => start.offset), ['0', '0', '0'])
  const [committed] = await admin.fetchOffsets({ groupId: `g-${suffix}`, topics: [topic] })
  assert.deepStrictEqual(committed.partitions.map((one) => one.offset), ['300', '300', '300'])
  const { groups } = await admin.describeGroups([`g-${suffix}`])
  assert.strictEqual(groups[0].state, 'Empty')

  const described = await admin.describeConfigs({ resources: [{ type: 2, name: topic }] })
  const retention = described.resources[0].configEntries.find((one) => one.configName === 'retention.ms')
  assert.strictEqual(retention.configValue, '-1')
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '7' }] })
  const [cut] = await admin.fetchTopicOffsets(topic)
  assert.strictEqual(cut.low, '7')
  await admin.deleteGroups([`g-${suffix}`])
  await admin.deleteTopics({ topics: [topic] })
  await assert.rejects(admin.fetchTopicMetadata({ topics: [topic] }), KafkaJSProtocolError)
  await admin.disconnect()
  console.log('kafkajs: done')
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
