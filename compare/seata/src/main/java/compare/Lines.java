package compare;

import io.netty.channel.ChannelHandler;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.socket.SocketChannel;
import io.netty.handler.codec.LineBasedFrameDecoder;
import io.netty.handler.codec.string.StringDecoder;
import io.netty.handler.codec.string.StringEncoder;
import io.netty.handler.flush.FlushConsolidationHandler;
import java.nio.charset.StandardCharsets;
import java.util.function.Supplier;

/**
 * A connection of lines, many requests under way at once: Seata leaves it to its user how a service
 * is called, and this is about the cheapest way.
 */
final class Lines extends ChannelInitializer<SocketChannel> {
    private final Supplier<ChannelHandler> last;

    Lines(Supplier<ChannelHandler> last) {
        this.last = last;
    }

    @Override
    protected void initChannel(SocketChannel connection) {
        connection.config().setTcpNoDelay(true);
        connection
                .pipeline()
                .addLast(new FlushConsolidationHandler(256, true))
                .addLast(new LineBasedFrameDecoder(4096))
                .addLast(new StringDecoder(StandardCharsets.UTF_8))
                .addLast(new StringEncoder(StandardCharsets.UTF_8))
                .addLast(last.get());
    }
}
