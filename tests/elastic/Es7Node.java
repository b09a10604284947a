import java.nio.file.*;
import java.util.*;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.http.HttpServerTransport;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.Plugin;
import org.elasticsearch.transport.Netty4Plugin;

/**
 * One Elasticsearch 7.17 node on free loopback ports: java -cp 'JARS/*' Es7Node.java HOME [setting=value ...].
 * The file HOME/url appears once HTTP answers.
 */
public class Es7Node {
    static class Embedded extends Node {
        Embedded(Settings settings, Collection<Class<? extends Plugin>> modules) {
            super(InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), null, () -> "test-node"), modules, false);
        }
    }

    public static void main(String[] args) throws Exception {
        Path home = Path.of(args[0]).toAbsolutePath();
        Settings.Builder settings = Settings.builder().put("path.home", home.toString()).put("cluster.name", "mlbridge-test")
            .put("network.host", "127.0.0.1").put("http.port", "0").put("transport.port", "0")
            .put("discovery.type", "single-node").put("action.auto_create_index", "logs-*,metrics-*")
            .put("cluster.routing.allocation.disk.threshold_enabled", false);
        for (String pair : Arrays.asList(args).subList(1, args.length)) {
            String[] parts = pair.split("=", 2);
            settings.put(parts[0], parts[1]);
        }
        Node node = new Embedded(settings.build(), List.of(Netty4Plugin.class));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try { node.close(); } catch (Exception e) { e.printStackTrace(); }
        }));
        node.start();
        int port = node.injector().getInstance(HttpServerTransport.class).boundAddress().publishAddress().getPort();
        Path half = Files.writeString(home.resolve("url.half"), "http://127.0.0.1:" + port);
        Files.move(half, home.resolve("url"), StandardCopyOption.ATOMIC_MOVE);
        Thread.currentThread().join();
    }
}
