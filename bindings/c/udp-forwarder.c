/* udp-forwarder: a small DNS forwarder that asks mlbridge about every name; the example of how a server in C uses the
 * library.
 *
 *   udp-forwarder SETTINGS.toml LISTEN_PORT UPSTREAM_PORT
 *
 * Queries to 127.0.0.1:LISTEN_PORT (0: a free port, which is printed) go to 127.0.0.1:UPSTREAM_PORT, unless the verdict
 * on their name says otherwise. SIGHUP reads the settings anew; SIGTERM and SIGINT end the process cleanly.
 *
 * It is made to be read: UDP only, one thread, IPv4. What a host of the library must do is marked with [mlb]. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

#include <mlbridge.h>

enum { HEADER = 12, PACKET = 4096, NOERROR = 0, NXDOMAIN = 3, REFUSED = 5, TYPE_A = 1, TYPE_AAAA = 28 };

/* What the forwarder keeps of a query until its answer comes; the index is the id of the query sent upstream. */
static struct pending {
    struct sockaddr_in client;
    uint8_t id[2]; /* the client's own */
    uint8_t waits;
} pending[65536];

static volatile sig_atomic_t stop, reload;

static void on_signal(int number) {
    if (number == SIGHUP)
        reload = 1;
    else
        stop = 1;
}

/* [mlb] The library never prints. When a verdict's flag says that a message waits, the host writes it to its own log. */
static void log_messages(const mlb_engine *engine) {
    char text[512];
    int level;
    while (mlb_message(engine, text, sizeof text, &level) == MLB_OK && text[0])
        fprintf(stderr, "udp-forwarder: %s: %s\n", level <= LOG_ERR ? "error" : level <= LOG_WARNING ? "warning" : "info", text);
}

/* [mlb] Settings come from the file alone, so that a reload starts from nothing as well. */
static mlb_config *read_settings(const char *path) {
    char err[512] = "out of memory";
    mlb_config *config;
    if (mlb_config_new(&config) == MLB_OK && mlb_config_load(config, path, err, sizeof err) == MLB_OK)
        return config;
    fprintf(stderr, "udp-forwarder: %s\n", err);
    mlb_config_free(config);
    return NULL;
}

/* [mlb] A reload that fails leaves the engine as it is: the server goes on filtering with the last good settings. A host
 * that cannot keep its engine over a reload calls mlb_init again with the same `instance`, and mlb_attach if that fails. */
static void reload_settings(const mlb_engine *engine, const char *path) {
    char err[512];
    mlb_config *config = read_settings(path);
    if (config && mlb_reload(engine, config, err, sizeof err) != MLB_OK)
        fprintf(stderr, "udp-forwarder: the settings stay as they were: %s\n", err);
    else if (config)
        fprintf(stderr, "udp-forwarder: settings reloaded\n");
    mlb_config_free(config);
}

/* Length of the question's name in wire form; 0 if the packet is not a plain query with one question. */
static size_t name_length(const uint8_t *packet, size_t length) {
    size_t at = HEADER;
    if (length < HEADER + 5 || packet[2] & 0xf8 || packet[4] || packet[5] != 1)
        return 0;
    while (at < length && packet[at] && packet[at] < 64)
        at += packet[at] + 1U;
    return at + 5 <= length && packet[at] == 0 && at < HEADER + 255 ? at + 1 - HEADER : 0;
}

/* Turns the query into the answer that the verdict asks for; gives its length, 0 for no answer. */
static size_t make_answer(uint8_t *packet, size_t question_end, uint16_t qtype, const mlb_verdict *verdict) {
    static const uint8_t nowhere[16];
    const uint8_t *address = NULL;
    size_t address_length = 0, length = question_end;
    int code = NOERROR;
    switch (verdict->action) {
    case MLB_NXDOMAIN: code = NXDOMAIN; break;
    case MLB_REFUSED: code = REFUSED; break;
    case MLB_DROP: return 0;
    case MLB_SINKHOLE: /* a type without an address, or a family that is not configured: no data */
        if (qtype == TYPE_A && memcmp(verdict->sinkhole4, nowhere, 4))
            address = verdict->sinkhole4, address_length = 4;
        if (qtype == TYPE_AAAA && memcmp(verdict->sinkhole6, nowhere, 16))
            address = verdict->sinkhole6, address_length = 16;
        break;
    default: break; /* MLB_NODATA */
    }
    packet[2] = 0x80 | (packet[2] & 0x01);     /* an answer; recursion desired as in the query */
    packet[3] = (uint8_t)(0x80 | code);        /* recursion available */
    memset(packet + 6, 0, HEADER - 6);         /* no records, no EDNS */
    if (address) {
        const uint8_t record[] = {0xc0, HEADER, 0, (uint8_t)qtype, 0, 1,
                                  (uint8_t)(verdict->ttl >> 24), (uint8_t)(verdict->ttl >> 16), (uint8_t)(verdict->ttl >> 8), (uint8_t)verdict->ttl,
                                  0, (uint8_t)address_length};
        packet[7] = 1;
        memcpy(packet + length, record, sizeof record);
        memcpy(packet + length + sizeof record, address, address_length);
        length += sizeof record + address_length;
    }
    return length;
}

static void take_query(const mlb_engine *engine, int downstream, int upstream) {
    uint8_t packet[PACKET + 64];
    struct sockaddr_in client;
    socklen_t client_length = sizeof client;
    ssize_t received = recvfrom(downstream, packet, PACKET, 0, (struct sockaddr *)&client, &client_length);
    size_t length = received > 0 ? (size_t)received : 0, name = name_length(packet, length);
    if (name == 0)
        return;
    size_t question_end = HEADER + name + 4;
    uint16_t qtype = (uint16_t)(packet[question_end - 4] << 8 | packet[question_end - 3]);

    /* [mlb] Name and client as they came from the wire. Should the call fail, the verdict is all zero, which is pass. */
    mlb_verdict verdict;
    mlb_status status = mlb_classify_wire(engine, packet + HEADER, name, (const uint8_t *)&client.sin_addr, 4, qtype, &verdict);
    if (status != MLB_OK)
        fprintf(stderr, "udp-forwarder: %s\n", mlb_strerror(status));
    if (verdict.flags & MLB_FLAG_MESSAGE)
        log_messages(engine);
    if (verdict.action != MLB_PASS) {
        size_t answer = make_answer(packet, question_end, qtype, &verdict);
        if (answer > 0)
            sendto(downstream, packet, answer, 0, (struct sockaddr *)&client, client_length);
        return;
    }

    uint16_t id;
    if (getrandom(&id, sizeof id, 0) != sizeof id)
        return;
    pending[id] = (struct pending){client, {packet[0], packet[1]}, 1};
    packet[0] = (uint8_t)(id >> 8);
    packet[1] = (uint8_t)id;
    send(upstream, packet, length, 0);
}

static void take_answer(int downstream, int upstream) {
    uint8_t packet[PACKET];
    ssize_t length = recv(upstream, packet, sizeof packet, 0);
    if (length < HEADER)
        return;
    struct pending *query = &pending[packet[0] << 8 | packet[1]];
    if (!query->waits)
        return;
    query->waits = 0;
    memcpy(packet, query->id, 2);
    sendto(downstream, packet, (size_t)length, 0, (struct sockaddr *)&query->client, sizeof query->client);
}

static int open_socket(int port, int connected) {
    struct sockaddr_in address = {0};
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int (*attach)(int, const struct sockaddr *, socklen_t) = connected ? connect : bind;
    socklen_t length = sizeof address;
    if (descriptor < 0 || attach(descriptor, (struct sockaddr *)&address, length) != 0) {
        perror("udp-forwarder: socket");
        exit(1);
    }
    if (!connected && getsockname(descriptor, (struct sockaddr *)&address, &length) == 0)
        printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    return descriptor;
}

int main(int count, char **arguments) {
    if (count != 4) {
        fprintf(stderr, "use: udp-forwarder SETTINGS.toml LISTEN_PORT UPSTREAM_PORT\n");
        return 2;
    }
    /* [mlb] The first call of every host. */
    if (mlb_abi_version() != MLB_ABI_VERSION) {
        fprintf(stderr, "udp-forwarder: built for ABI %d, the library has %u\n", MLB_ABI_VERSION, mlb_abi_version());
        return 1;
    }
    /* [mlb] Init reads files and starts nothing; the worker thread begins with the first event. */
    char err[512];
    mlb_engine *engine;
    mlb_config *config = read_settings(arguments[1]);
    if (!config)
        return 1;
    mlb_status status = mlb_init(config, &engine, err, sizeof err);
    mlb_config_free(config);
    if (status != MLB_OK) {
        fprintf(stderr, "udp-forwarder: %s\n", err);
        return 1;
    }

    /* Signals come only while the loop waits: nothing is missed between the look at a flag and the wait. */
    struct sigaction action = {0};
    sigset_t blocked, waiting;
    action.sa_handler = on_signal;
    sigemptyset(&blocked);
    for (int at = 0; at < 3; at++) {
        sigaction((int[]){SIGHUP, SIGTERM, SIGINT}[at], &action, NULL);
        sigaddset(&blocked, (int[]){SIGHUP, SIGTERM, SIGINT}[at]);
    }
    sigprocmask(SIG_BLOCK, &blocked, &waiting);
    struct pollfd sockets[2] = {{open_socket(atoi(arguments[2]), 0), POLLIN, 0}, {open_socket(atoi(arguments[3]), 1), POLLIN, 0}};
    fflush(stdout);
    while (!stop) {
        if (reload) {
            reload = 0;
            reload_settings(engine, arguments[1]);
        }
        if (ppoll(sockets, 2, NULL, &waiting) <= 0)
            continue;
        if (sockets[0].revents)
            take_query(engine, sockets[0].fd, sockets[1].fd);
        if (sockets[1].revents)
            take_answer(sockets[0].fd, sockets[1].fd);
    }
    /* [mlb] Stores what is still queued; waits no longer than close_timeout_ms. */
    log_messages(engine);
    mlb_free(engine);
    return 0;
}
