package compare;

import io.netty.bootstrap.ServerBootstrap;
import io.netty.channel.Channel;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.seata.core.model.BranchType;
import io.seata.rm.DefaultResourceManager;
import io.seata.rm.RMClient;
import io.seata.rm.tcc.TCCResource;
import io.seata.rm.tcc.api.BusinessActionContext;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetSocketAddress;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * A service that takes part by Seata's TCC and does nothing but count. It is asked to prepare over a
 * connection of its own ({@link Lines}), registers its branch with Seata's server as every TCC
 * service does, and is called by that server to commit or to roll back.
 *
 * <p>Its first line on stdout is its address; each line on stdin is answered with its counts.
 */
public final class Participant {
    /** Registering waits for Seata's server and its disk, in a thread for each caller. */
    private static final int THREADS = 512;

    private final String resource;
    private final Set<String> prepared = ConcurrentHashMap.newKeySet();
    private final Set<String> committed = ConcurrentHashMap.newKeySet();
    private final Set<String> rolledBack = ConcurrentHashMap.newKeySet();
    private final ExecutorService threads = Executors.newFixedThreadPool(THREADS);

    private Participant(String resource) {
        this.resource = resource;
    }

    public static void main(String[] arguments) throws Exception {
        Participant participant = new Participant(arguments[0]);
        participant.register();
        Channel listening = participant.listen();
        System.out.println("127.0.0.1:" + ((InetSocketAddress) listening.localAddress()).getPort());

        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        while (lines.readLine() != null) {
            System.out.printf(
                    "{\"tried\":%d,\"confirmed\":%d,\"cancelled\":%d}%n",
                    participant.prepared.size(),
                    participant.committed.size(),
                    participant.rolledBack.size());
        }
        System.exit(0);
    }

    /** Called by Seata in its second phase. */
    public boolean commit(BusinessActionContext context) {
        committed.add(context.getXid());
        return true;
    }

    /** Called by Seata in its second phase. */
    public boolean rollback(BusinessActionContext context) {
        rolledBack.add(context.getXid());
        return true;
    }

    private void register() throws NoSuchMethodException {
        RMClient.init(resource, Client.GROUP);
        TCCResource described = new TCCResource();
        described.setActionName(resource);
        described.setAppName(resource);
        described.setTargetBean(this);
        Class<?>[] parameters = {BusinessActionContext.class};
        described.setCommitMethodName("commit");
        described.setCommitMethod(Participant.class.getMethod("commit", parameters));
        described.setCommitArgsClasses(parameters);
        described.setPhaseTwoCommitKeys(new String[1]);
        described.setRollbackMethodName("rollback");
        described.setRollbackMethod(Participant.class.getMethod("rollback", parameters));
        described.setRollbackArgsClasses(parameters);
        described.setPhaseTwoRollbackKeys(new String[1]);
        DefaultResourceManager.get().registerResource(described);
    }

    private Channel listen() throws InterruptedException {
        return new ServerBootstrap()
                .group(new NioEventLoopGroup(1))
                .channel(NioServerSocketChannel.class)
                .childHandler(new Lines(Asked::new))
                .bind("127.0.0.1", 0)
                .sync()
                .channel();
    }

    /** One line "number xid" is a request to prepare; "number" or "number !why" is the answer. */
    private final class Asked extends SimpleChannelInboundHandler<String> {
        @Override
        protected void channelRead0(ChannelHandlerContext connection, String line) {
            int space = line.indexOf(' ');
            String number = line.substring(0, space);
            String xid = line.substring(space + 1);
            threads.execute(() -> connection.writeAndFlush(number + prepare(xid) + "\n"));
        }
    }

    private String prepare(String xid) {
        try {
            DefaultResourceManager.get()
                    .branchRegister(
                            BranchType.TCC, resource, null, xid, "{\"actionContext\":{}}", null);
            prepared.add(xid);
            return "";
        } catch (Exception failure) {
            return " !" + String.valueOf(failure).replace('\n', ' ');
        }
    }
}
