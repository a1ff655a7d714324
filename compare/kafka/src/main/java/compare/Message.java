package compare;

import java.nio.ByteBuffer;

/** 300 bytes: which run of which producer they are of, and their number there. */
final class Message {
    static final int BYTES = 300;

    private Message() {}

    static byte[] of(int run, int producer, long number) {
        return ByteBuffer.allocate(BYTES).putInt(run).putInt(producer).putLong(number).array();
    }

    /** The run and the producer as one. */
    static long source(byte[] message) {
        return ByteBuffer.wrap(message).getLong();
    }

    static long number(byte[] message) {
        return ByteBuffer.wrap(message).getLong(8);
    }
}
