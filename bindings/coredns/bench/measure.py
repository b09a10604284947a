"""Runs the measurements of bench.sh: starts one server a variant, loads them in turn with dnsperf, reads from /proc what
processor time each took, and prints a table. Arguments: folder with the program, pairs, seconds a run."""

import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import time

TICK = os.sysconf("SC_CLK_TCK")
ANSWER = 'template IN ANY {\n answer "{{ .Name }} 300 IN A 192.0.2.80"\n}\n'


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


class Server:
    """One CoreDNS: its own port and Corefile. Unless it is bare, it has the plugins that every production server has."""

    def __init__(self, folder, name, block, bare=False):
        self.port = free_port()
        usual = "" if bare else f"errors\nprometheus 127.0.0.1:{free_port()}\n"
        corefile = folder / f"{name}.Corefile"
        corefile.write_text(f".:{self.port} {{\nbind 127.0.0.1\n{usual}{block}cache\n{ANSWER}}}\n")
        self.process = subprocess.Popen(
            [folder / "coredns", "-quiet", "-conf", corefile], stdout=subprocess.DEVNULL, cwd=folder)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise SystemExit(f"{name}: the server does not start")

    def load(self, names, seconds):
        """Runs dnsperf; returns microseconds of processor time a query, queries a second, mean latency in ms, lost."""
        before = cpu_seconds(self.process.pid)
        out = subprocess.run(
            ["dnsperf", "-s", "127.0.0.1", "-p", str(self.port), "-d", names, "-l", str(seconds), "-c", "8", "-q", "64"],
            capture_output=True, text=True, check=True).stdout
        used = cpu_seconds(self.process.pid) - before

        def value(pattern):
            match = re.search(pattern, out)
            if match is None:
                raise SystemExit(f"dnsperf says nothing of {pattern}:\n{out}")
            return float(match.group(1))

        done = value(r"Queries completed:\s+(\d+)")
        return (used / done * 1e6, value(r"Queries per second:\s+([\d.]+)"),
                value(r"Average Latency \(s\):\s+([\d.]+)") * 1e3, value(r"Queries lost:\s+(\d+)"))

    def stop(self):
        self.process.terminate()
        self.process.wait()


def write_names(path, names):
    path.write_text("".join(f"{name} A\n" for name in names))
    return path


def main():
    folder, pairs, seconds = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    (folder / "block.txt").write_text("||evil.example^\n")
    hot = write_names(folder / "hot", [f"www{n}.example{n % 50}.com" for n in range(1000)])
    blocked = write_names(folder / "blocked", [f"www{n}.evil.example" for n in range(1000)])
    fresh_count = iter(range(1 << 30))

    def fresh():
        # No name comes twice: neither CoreDNS nor the library has it cached. As many as a run can ask at most.
        wanted = int(seconds * 150_000)
        start = next(fresh_count) * wanted
        return write_names(folder / "fresh", (f"h{n:x}.site{n % 9973}.net" for n in range(start, start + wanted)))

    post_port = free_port()
    nothing = subprocess.Popen([folder / "coredns", "nothing", f"127.0.0.1:{post_port}"])
    ours = f"mlbridge {{\nlists.block {folder}/block.txt\n}}\n"
    variants = {
        "no plugin": Server(folder, "without", ""),
        "mlbridge": Server(folder, "mlbridge", ours),
        "mlbridge with its store": Server(folder, "store", ours.replace("}", f"state_dir {folder}/state\n}}")),
        "one HTTP POST a query": Server(folder, "post", f"posteach http://127.0.0.1:{post_port}/\n"),
    }
    # A query's goroutine begins with a small stack. In this short chain it just suffices; with any plugin more the stack is
    # copied once more, as it is in every longer chain without ours.
    bare = {
        "no plugin": Server(folder, "bare-without", "", bare=True),
        "mlbridge": Server(folder, "bare-mlbridge", ours, bare=True),
    }
    print(f"{os.cpu_count()} processors, {pairs} alternating runs of {seconds:g} s each, medians; "
          f"{time.strftime('%Y-%m-%d')}\n")
    print("| names | server | CPU a query, us | against no plugin, us (%) | queries/s | latency, ms | lost |")
    print("|---|---|---|---|---|---|---|")
    try:
        measure("cached", variants, lambda: hot, pairs, seconds)
        measure("new", variants, fresh, pairs, seconds)
        measure("blocked", variants, lambda: blocked, pairs, seconds)
        measure("cached; only cache and template beside", bare, lambda: hot, pairs, seconds)
    finally:
        for server in [*variants.values(), *bare.values()]:
            server.stop()
        nothing.terminate()
        nothing.wait()


def measure(kind, servers, names, pairs, seconds):
    """Loads the servers in turn, forwards and backwards, and prints a row for each. The first is what others are held to."""
    runs = {title: [] for title in servers}
    for server in servers.values():
        server.load(names(), 1)  # warm up
    for turn in range(pairs):
        for title in list(servers) if turn % 2 == 0 else list(reversed(servers)):
            runs[title].append(servers[title].load(names(), seconds))
    base = [run[0] for run in next(iter(runs.values()))]
    for title, results in runs.items():
        cpu, rate, latency, _ = (statistics.median(column) for column in zip(*results))
        lost = sum(run[3] for run in results)
        more = statistics.median(run[0] - other for run, other in zip(results, base))
        against = f"{more:+.2f} ({more / statistics.median(base):+.1%})" if more or lost else ""
        print(f"| {kind} | {title} | {cpu:.2f} | {against} | {rate:,.0f} | {latency:.2f} | {lost:.0f} |", flush=True)


main()
