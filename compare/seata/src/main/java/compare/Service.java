package compare;

import io.netty.bootstrap.Bootstrap;
import io.netty.channel.Channel;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.socket.nio.NioSocketChannel;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;

/** The client's connection to one {@link Participant}. */
final class Service extends SimpleChannelInboundHandler<String> {
    private final Map<Long, CompletableFuture<Void>> asked = new ConcurrentHashMap<>();
    private final AtomicLong number = new AtomicLong();
    private final Channel connection;

    Service(EventLoopGroup group, String address) throws InterruptedException {
        int colon = address.indexOf(':');
        connection =
                new Bootstrap()
                        .group(group)
                        .channel(NioSocketChannel.class)
                        .handler(new Lines(() -> this))
                        .connect(
                                address.substring(0, colon),
                                Integer.parseInt(address.substring(colon + 1)))
                        .sync()
                        .channel();
    }

    /** Asks for the first phase; fails with what the participant says was wrong. */
    CompletableFuture<Void> prepare(String xid) {
        long own = number.incrementAndGet();
        CompletableFuture<Void> answer = new CompletableFuture<>();
        asked.put(own, answer);
        connection.writeAndFlush(own + " " + xid + "\n");
        return answer;
    }

    @Override
    protected void channelRead0(ChannelHandlerContext context, String line) {
        int space = line.indexOf(' ');
        long own = Long.parseLong(space < 0 ? line : line.substring(0, space));
        CompletableFuture<Void> answer = asked.remove(own);
        if (space < 0) {
            answer.complete(null);
        } else {
            answer.completeExceptionally(new IllegalStateException(line.substring(space + 2)));
        }
    }
}
