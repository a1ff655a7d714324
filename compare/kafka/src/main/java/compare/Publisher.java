package compare;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Semaphore;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Publishes, and measures until the broker has acknowledged. Its argument is the broker's address.
 *
 * <p>Lines on stdin are levels: "events in-flight warm-up seconds linger-ms requests" is one producer with
 * so many events, and so many requests, under way; "transactions producers warm-up seconds linger-ms" so many producers, each
 * with one transaction of two events to two topics at a time. Each is answered with a line of JSON.
 */
public final class Publisher {
    static final String FIRST = "first";
    static final String SECOND = "second";

    private final String broker;
    private int run;

    private Publisher(String broker) {
        this.broker = broker;
    }

    public static void main(String[] arguments) throws Exception {
        Publisher publisher = new Publisher(arguments[0]);
        publisher.createTopics();
        System.out.println("ready");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split(" ");
            int atOnce = Integer.parseInt(words[1]);
            double warmup = Double.parseDouble(words[2]);
            double seconds = Double.parseDouble(words[3]);
            publisher.run++;
            Level level =
                    words[0].equals("events")
                            ? publisher.events(atOnce, warmup, seconds, words[4], words[5])
                            : publisher.transactions(atOnce, warmup, seconds, words[4]);
            System.out.println(level.json());
        }
        System.exit(0);
    }

    private void createTopics() throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", broker))) {
            List<NewTopic> topics =
                    List.of(
                            new NewTopic(FIRST, 1, (short) 1), new NewTopic(SECOND, 1, (short) 1));
            admin.createTopics(topics).all().get();
        }
    }

    private Level events(
            int atOnce, double warmup, double seconds, String linger, String requests)
            throws InterruptedException {
        Map<String, Object> settings =
                Map.of(
                        "bootstrap.servers", broker,
                        "acks", "all",
                        "linger.ms", linger,
                        "max.in.flight.requests.per.connection", requests,
                        "batch.size", 256 * 1024,
                        "buffer.memory", 64 * 1024 * 1024);
        Semaphore free = new Semaphore(atOnce);
        try (var producer = producer(settings)) {
            producer.partitionsFor(FIRST);
            Level level = new Level(warmup, seconds);
            for (long number = 1; !level.over(); number++) {
                free.acquire();
                byte[] message = Message.of(run, 0, number);
                long began = System.nanoTime();
                producer.send(
                        new ProducerRecord<>(FIRST, message),
                        (place, failure) -> {
                            if (failure == null) {
                                level.done(began);
                            } else {
                                level.failed(failure);
                            }
                            free.release();
                        });
            }
            free.acquire(atOnce);
            return level;
        }
    }

    private Level transactions(int producers, double warmup, double seconds, String linger)
            throws InterruptedException {
        List<KafkaProducer<byte[], byte[]>> opened = new ArrayList<>();
        for (int i = 0; i < producers; i++) {
            Map<String, Object> settings =
                    Map.of(
                            "bootstrap.servers", broker,
                            "acks", "all",
                            "linger.ms", linger,
                            "buffer.memory", 1024 * 1024,
                            "transactional.id", "producer-" + run + "-" + i);
            opened.add(producer(settings));
            opened.get(i).initTransactions();
        }
        Level level = new Level(warmup, seconds);
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < producers; i++) {
            int own = i;
            threads.add(new Thread(() -> transact(level, opened.get(own), own)));
            threads.get(i).start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        opened.forEach(KafkaProducer::close);
        return level;
    }

    private void transact(Level level, KafkaProducer<byte[], byte[]> producer, int own) {
        for (long number = 1; !level.over(); number++) {
            byte[] message = Message.of(run, own, number);
            long began = System.nanoTime();
            try {
                producer.beginTransaction();
                producer.send(new ProducerRecord<>(FIRST, message));
                producer.send(new ProducerRecord<>(SECOND, message));
                producer.commitTransaction();
                level.done(began);
            } catch (RuntimeException failure) {
                // Whether it was committed is not known; this producer cannot go on.
                level.failed(failure);
                return;
            }
        }
    }

    private static KafkaProducer<byte[], byte[]> producer(Map<String, Object> settings) {
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }
}
