import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.concurrent.Executors;

// The same service as main.go, as the Java process that somebody starts by
// hand: java -jar NAME.jar --server.port=PORT
public class App {
	public static void main(String[] args) throws Exception {
		int port = 0;
		for (String a : args) {
			if (a.startsWith("--server.port=")) {
				port = Integer.parseInt(a.substring(14));
			}
		}
		String kernel = new String(Files.readAllBytes(Paths.get("/proc/sys/kernel/osrelease"))).trim();
		String name = System.getProperty("java.class.path").replaceFirst("^.*/", "").replaceFirst("\\.jar$", "");
		HttpServer server = HttpServer.create(new InetSocketAddress(port), 128);
		server.setExecutor(Executors.newCachedThreadPool());
		server.createContext("/health", x -> answer(x, "text/plain", "ok\n"));
		server.createContext("/stream", App::stream);
		server.createContext("/", x -> answer(x, "application/json", String.format(
			"{\"addr\":\"%s\",\"port\":%d,\"service\":\"%s\",\"kernel\":\"%s\"}\n",
			x.getLocalAddress().getAddress().getHostAddress(), x.getLocalAddress().getPort(), name, kernel)));
		// SIGTERM: no new requests, and those under way are finished.
		Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(1)));
		server.start();
	}

	static void answer(HttpExchange x, String type, String text) throws IOException {
		byte[] body = text.getBytes("UTF-8");
		x.getRequestBody().readAllBytes();
		x.getResponseHeaders().set("Content-Type", type);
		x.sendResponseHeaders(200, body.length);
		try (OutputStream out = x.getResponseBody()) {
			out.write(body);
		}
	}

	// A line every 100 ms for as many seconds as ?seconds= says, and a last one.
	static void stream(HttpExchange x) throws IOException {
		String query = x.getRequestURI().getQuery();
		double seconds = Double.parseDouble(query.substring(query.indexOf('=') + 1));
		long end = System.nanoTime() + (long) (seconds * 1e9);
		x.sendResponseHeaders(200, 0);
		try (OutputStream out = x.getResponseBody()) {
			for (int i = 0; System.nanoTime() < end; i++) {
				out.write(("chunk " + i + "\n").getBytes("UTF-8"));
				out.flush();
				Thread.sleep(Math.max(1, Math.min(100, (end - System.nanoTime()) / 1_000_000)));
			}
			out.write("end\n".getBytes("UTF-8"));
		} catch (InterruptedException e) {
			throw new IOException(e);
		}
	}
}
