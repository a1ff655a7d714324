package compare;

import jakarta.transaction.TransactionManager;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicLong;
import org.HdrHistogram.Histogram;
import org.mariadb.jdbc.MariaDbDataSource;
import org.postgresql.xa.PGXADataSource;

/**
 * Keeps N transfers between PostgreSQL and MariaDB under way, with Narayana as the coordinator. It
 * stays alive between levels, since a virtual machine must be warm. Arguments are the JDBC URLs of
 * both, the store ("files" or "journal") and the store's directory. A line "concurrency warm-up
 * seconds" on stdin is one level, with tables made anew; its answer is one line of JSON.
 */
public final class Transfers {
    private final TransactionManager manager;
    private final Bank postgres;
    private final Bank mariadb;
    /** Threads for the half of a transfer that another does; they end with the process. */
    private final ExecutorService others =
            Executors.newCachedThreadPool(
                    task -> {
                        Thread thread = new Thread(task);
                        thread.setDaemon(true);
                        return thread;
                    });
    private final AtomicLong next = new AtomicLong(1);
    private volatile long from;
    private volatile long until;

    public static void main(String[] arguments) throws Exception {
        Transfers transfers = new Transfers(arguments[0], arguments[1], arguments[2], arguments[3]);
        // Threads of the store would keep a process alive whose main thread has failed.
        Thread.currentThread().setUncaughtExceptionHandler(
                (thread, failure) -> {
                    failure.printStackTrace();
                    System.exit(1);
                });
        System.out.println("ready");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split(" ");
            System.out.println(
                    transfers.level(
                            Integer.parseInt(words[0]),
                            Double.parseDouble(words[1]),
                            Double.parseDouble(words[2])));
        }
        System.exit(0);
    }

    private Transfers(String postgresUrl, String mariadbUrl, String store, String directory)
            throws Exception {
        manager = Coordinator.start(store, directory);
        PGXADataSource orders = new PGXADataSource();
        orders.setUrl(postgresUrl);
        postgres = new Bank("PostgreSQL", orders, -1, "SELECT gid FROM pg_prepared_xacts");
        mariadb = new Bank("MariaDB", new MariaDbDataSource(mariadbUrl), 1, "XA RECOVER");
    }

    private String level(int concurrency, double warmup, double seconds) throws Exception {
        postgres.create();
        mariadb.create();
        from = System.nanoTime() + (long) (warmup * 1e9);
        until = from + (long) (seconds * 1e9);
        List<Caller> callers = new ArrayList<>();
        for (int i = 0; i < concurrency; i++) {
            Caller caller = new Caller();
            callers.add(caller);
            caller.start();
        }
        Histogram latencies = new Histogram(1, 60_000_000, 3);
        long committed = 0;
        long errors = 0;
        String problem = "";
        for (Caller caller : callers) {
            caller.join();
            latencies.add(caller.latencies);
            committed += caller.committed;
            if (!caller.failure.isEmpty()) {
                errors++;
                problem = "an error: " + caller.failure + "; ";
            }
        }
        problem += postgres.check(committed) + mariadb.check(committed);
        return String.format(
                Locale.ROOT,
                "{\"committed\":%d,\"seconds\":%f,\"p50_ms\":%f,\"p99_ms\":%f,"
                        + "\"total_committed\":%d,\"errors\":%d,\"problem\":\"%s\"}",
                latencies.getTotalCount(),
                seconds,
                latencies.getValueAtPercentile(50) / 1000.0,
                latencies.getValueAtPercentile(99) / 1000.0,
                committed,
                errors,
                problem.replaceAll("[^ -~]|[\"\\\\]", " "));
    }

    /** One closed loop, until the time is over or a transfer fails. */
    private final class Caller extends Thread {
        final Histogram latencies = new Histogram(1, 60_000_000, 3);
        long committed;
        String failure = "";

        @Override
        public void run() {
            while (System.nanoTime() < until) {
                long began = System.nanoTime();
                try {
                    transfer();
                } catch (Exception | Error thrown) {
                    failure = thrown + (thrown.getCause() == null ? "" : ": " + thrown.getCause());
                    return;
                }
                committed++;
                long ended = System.nanoTime();
                if (ended > from && ended < until) {
                    latencies.recordValue((ended - began) / 1000);
                }
            }
        }
    }

    /** Both connections are enlisted first; then the SQL of both is done at the same time. */
    private void transfer() throws Exception {
        long number = next.getAndIncrement();
        Bank.Session orders = postgres.take();
        Bank.Session ledger = mariadb.take();
        try {
            manager.begin();
            try {
                manager.getTransaction().enlistResource(orders.resource);
                manager.getTransaction().enlistResource(ledger.resource);
                Future<?> other = others.submit(() -> ledger.work(number));
                try {
                    orders.work(number);
                } finally {
                    // Nothing may be rolled back below somebody who still works.
                    other.get();
                }
            } catch (Exception | Error failure) {
                manager.rollback();
                throw failure;
            }
            manager.commit();
        } catch (Exception | Error failure) {
            orders.close();
            ledger.close();
            throw failure;
        }
        postgres.give(orders);
        mariadb.give(ledger);
    }
}
