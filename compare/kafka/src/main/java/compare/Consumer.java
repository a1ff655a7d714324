package compare;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * A consumer group of one, which checks that events come once and in the order of their producer.
 * Its arguments are the broker's address and the group. Each line on stdin is answered with what it
 * has counted.
 */
public final class Consumer {
    private final Map<String, Long> last = new HashMap<>();
    private long events;
    private long wrong;

    public static void main(String[] arguments) throws Exception {
        Consumer consumer = new Consumer();
        Thread reading = new Thread(() -> consumer.read(arguments[0], arguments[1]));
        reading.setDaemon(true);
        reading.start();
        System.out.println("ready");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        while (lines.readLine() != null) {
            System.out.println(consumer.json());
        }
        System.exit(0);
    }

    private void read(String broker, String group) {
        Map<String, Object> settings =
                Map.of(
                        "bootstrap.servers", broker,
                        "group.id", group,
                        "auto.offset.reset", "earliest",
                        "isolation.level", "read_committed",
                        "enable.auto.commit", true,
                        "auto.commit.interval.ms", 1000,
                        "max.poll.records", 5000);
        try (var consumer =
                new KafkaConsumer<>(
                        settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of(Publisher.FIRST, Publisher.SECOND));
            while (true) {
                consumer.poll(Duration.ofSeconds(1)).forEach(this::count);
            }
        }
    }

    private synchronized void count(ConsumerRecord<byte[], byte[]> record) {
        events++;
        long number = Message.number(record.value());
        String source = record.topic() + Message.source(record.value());
        Long before = last.put(source, number);
        if (before != null && number <= before) {
            wrong++;
        }
    }

    private synchronized String json() {
        return String.format("{\"events\":%d,\"wrong\":%d}", events, wrong);
    }
}
