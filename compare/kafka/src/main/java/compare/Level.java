package compare;

import java.util.Locale;
import org.HdrHistogram.Histogram;

/** What is measured at one level: from the end of the warm-up until the time is over. */
final class Level {
    final double seconds;
    final long from;
    final long until;
    private final Histogram latencies = new Histogram(1, 60_000_000, 3);
    private long total;
    private long errors;
    private String firstError = "";

    Level(double warmup, double seconds) {
        this.seconds = seconds;
        from = System.nanoTime() + (long) (warmup * 1e9);
        until = from + (long) (seconds * 1e9);
    }

    boolean over() {
        return System.nanoTime() >= until;
    }

    synchronized void done(long began) {
        long ended = System.nanoTime();
        total++;
        if (ended > from && ended < until) {
            latencies.recordValue((ended - began) / 1000);
        }
    }

    synchronized void failed(Exception failure) {
        errors++;
        if (firstError.isEmpty()) {
            firstError = failure.toString().replaceAll("[^ -~]|[\"\\\\]", " ");
        }
    }

    /** The totals include the warm-up, to be compared with what the consumers counted. */
    synchronized String json() {
        return String.format(
                Locale.ROOT,
                "{\"counted\":%d,\"seconds\":%f,\"p50_ms\":%f,\"p99_ms\":%f,"
                        + "\"total\":%d,\"total_errors\":%d,\"first_error\":\"%s\"}",
                latencies.getTotalCount(),
                seconds,
                latencies.getValueAtPercentile(50) / 1000.0,
                latencies.getValueAtPercentile(99) / 1000.0,
                total,
                errors,
                firstError);
    }
}
