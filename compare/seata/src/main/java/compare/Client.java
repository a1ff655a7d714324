package compare;

import io.netty.channel.nio.NioEventLoopGroup;
import io.seata.core.context.RootContext;
import io.seata.core.model.GlobalStatus;
import io.seata.tm.TMClient;
import io.seata.tm.api.GlobalTransaction;
import io.seata.tm.api.GlobalTransactionContext;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.HdrHistogram.Histogram;

/**
 * Keeps N transactions under way: begin, ask both participants to prepare at the same time, commit.
 * It stays alive between levels, since a virtual machine must be warm. Arguments are the
 * participants' addresses. A line "concurrency warm-up seconds" on stdin is one level; its answer
 * is one line of JSON.
 */
public final class Client {
    static final String GROUP = "compare";
    private static final int TIMEOUT_MS = 30_000;

    private final List<Service> services = new ArrayList<>();
    private long from;
    private long until;

    public static void main(String[] arguments) throws Exception {
        TMClient.init("client", GROUP);
        Client client = new Client();
        NioEventLoopGroup group = new NioEventLoopGroup(1);
        for (String address : arguments) {
            client.services.add(new Service(group, address));
        }
        System.out.println("ready");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split(" ");
            System.out.println(
                    client.level(
                            Integer.parseInt(words[0]),
                            Double.parseDouble(words[1]),
                            Double.parseDouble(words[2])));
        }
        System.exit(0);
    }

    private String level(int concurrency, double warmup, double seconds) throws Exception {
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
        String firstError = "";
        for (Caller caller : callers) {
            caller.join();
            latencies.add(caller.latencies);
            committed += caller.committed;
            errors += caller.errors;
            firstError = caller.firstError.isEmpty() ? firstError : caller.firstError;
        }
        return String.format(
                Locale.ROOT,
                "{\"committed\":%d,\"seconds\":%f,\"p50_ms\":%f,\"p99_ms\":%f,"
                        + "\"total_committed\":%d,\"total_errors\":%d,\"first_error\":\"%s\"}",
                latencies.getTotalCount(),
                seconds,
                latencies.getValueAtPercentile(50) / 1000.0,
                latencies.getValueAtPercentile(99) / 1000.0,
                committed,
                errors,
                firstError.replaceAll("[^ -~]|[\"\\\\]", " "));
    }

    /** One closed loop. */
    private final class Caller extends Thread {
        final Histogram latencies = new Histogram(1, 60_000_000, 3);
        long committed;
        long errors;
        String firstError = "";

        @Override
        public void run() {
            while (System.nanoTime() < until) {
                long began = System.nanoTime();
                try {
                    transaction();
                } catch (Exception failure) {
                    errors++;
                    firstError = firstError.isEmpty() ? failure.toString() : firstError;
                    continue;
                } finally {
                    RootContext.unbind();
                }
                committed++;
                long ended = System.nanoTime();
                if (ended > from && ended < until) {
                    latencies.recordValue((ended - began) / 1000);
                }
            }
        }
    }

    private void transaction() throws Exception {
        GlobalTransaction transaction = GlobalTransactionContext.createNew();
        transaction.begin(TIMEOUT_MS, "compare");
        try {
            List<CompletableFuture<Void>> answers = new ArrayList<>();
            for (Service service : services) {
                answers.add(service.prepare(transaction.getXid()));
            }
            for (CompletableFuture<Void> answer : answers) {
                answer.get(TIMEOUT_MS, TimeUnit.MILLISECONDS);
            }
        } catch (Exception refused) {
            transaction.rollback();
            throw refused;
        }
        transaction.commit();
        GlobalStatus status = transaction.getLocalStatus();
        if (status != GlobalStatus.Committed && status != GlobalStatus.Finished) {
            throw new IllegalStateException("commit ended as " + status);
        }
    }
}
