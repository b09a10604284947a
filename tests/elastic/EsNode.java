import java.lang.reflect.Method;
import java.nio.file.*;
import java.util.*;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.http.HttpServerTransport;
import org.elasticsearch.node.*;
import org.elasticsearch.plugins.*;

/**
 * One Elasticsearch node on free loopback ports:
 * java --module-path JARS --add-modules ALL-MODULE-PATH EsNode.java HOME [setting=value ...], with HOME/modules/transport-netty4.
 * The file HOME/url appears once HTTP answers.
 */
public class EsNode {
    @SuppressWarnings("unchecked")
    static Set<PluginBundle> bundles(String method, Path folder) throws Exception {
        for (Method candidate : PluginsLoader.class.getMethods()) {
            if (!candidate.getName().equals(method)) continue;
            boolean one = candidate.getParameterCount() == 1;   // up to 9.0; later a flag comes second
            return (Set<PluginBundle>) (one ? candidate.invoke(null, folder) : candidate.invoke(null, folder, false));
        }
        throw new NoSuchMethodException(method);
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
        LogConfigurator.configureESLogging();
        var environment = InternalSettingsPreparer.prepareEnvironment(settings.build(), Map.of(), home.resolve("config"), () -> "test-node");
        var loader = PluginsLoader.createPluginsLoader(bundles("loadModulesBundles", environment.modulesDir()),
            bundles("loadPluginsBundles", environment.pluginsDir()), Map.of());
        Node node = new Node(environment, loader);
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
