import java.nio.file.*;
import java.util.*;
import org.opensearch.Version;
import org.opensearch.common.settings.Settings;
import org.opensearch.http.HttpServerTransport;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.plugins.PluginInfo;

/**
 * One OpenSearch node on free loopback ports: java -cp 'JARS/*' OsNode.java HOME [setting=value ...].
 * The file HOME/url appears once HTTP answers. Plugins lie unpacked in HOME/plugins.
 */
public class OsNode {
    /** Modules, as package and simple name; the 3.x line calls FooPlugin FooModulePlugin. The first is needed, lane os1 has no more. */
    static final String[] MODULES = {"transport.Netty4", "painless.Painless", "ingest.common.IngestCommon",
        "analysis.common.CommonAnalysis", "index.mapper.MapperExtras", "index.reindex.Reindex", "script.mustache.Mustache"};

    static class Embedded extends Node {
        @SuppressWarnings({"unchecked", "rawtypes"})   // 2.x wants classes, 3.x plugin descriptions
        Embedded(Settings settings, Collection modules) {
            super(InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), null, () -> "test-node"), modules, false);
        }
    }

    static List<Object> modules() throws ClassNotFoundException {
        List<Object> modules = new ArrayList<>();
        for (String module : MODULES) {
            if (module != MODULES[0] && Version.CURRENT.major < 2) break;
            if (Version.CURRENT.major < 3) {
                modules.add(Class.forName("org.opensearch." + module + "Plugin"));
            } else {
                String name = "org.opensearch." + module + "ModulePlugin";
                modules.add(new PluginInfo(name, "module", "NA", Version.CURRENT, "1.8", name, null, List.of(), false));
            }
        }
        return modules;
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
        Node node = new Embedded(settings.build(), modules());
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try { node.close(); } catch (Exception e) { e.printStackTrace(); }
        }));
        node.start();
        boolean tls = "true".equals(settings.get("plugins.security.ssl.http.enabled"));
        int port = node.injector().getInstance(HttpServerTransport.class).boundAddress().publishAddress().getPort();
        Path half = Files.writeString(home.resolve("url.half"), (tls ? "https" : "http") + "://127.0.0.1:" + port);
        Files.move(half, home.resolve("url"), StandardCopyOption.ATOMIC_MOVE);
        Thread.currentThread().join();
    }
}
