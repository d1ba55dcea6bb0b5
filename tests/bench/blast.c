// The fastest publisher there can be: PUB lines in 64 KiB writes, JetStream acknowledgements counted, a bounded window.
// usage: blast PORT MESSAGES PAYLOAD_BYTES SUBJECTS WINDOW PREFIX WITH_IDS; prints one line of JSON.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { WRITE_BYTES = 65536, READ_BYTES = 1 << 20 };

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static int greet(int port, const char *inbox) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    int link = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (connect(link, (struct sockaddr *)&address, sizeof address)) return -1;
    setsockopt(link, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    char answer[65536];
    if (read(link, answer, sizeof answer) <= 0) return -1;  // INFO
    dprintf(link, "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n"
                  "SUB %s.* 1\r\nPING\r\n", inbox);
    if (read(link, answer, sizeof answer) <= 0) return -1;  // PONG
    fcntl(link, F_SETFL, O_NONBLOCK);
    return link;
}

int main(int count, char **word) {
    if (count != 8) return 2;
    int port = atoi(word[1]), payload = atoi(word[3]), subjects = atoi(word[4]), ids = atoi(word[7]);
    long messages = atol(word[2]), window = atol(word[5]), sent = 0, acked = 0, refused = 0;
    char inbox[32];
    snprintf(inbox, sizeof inbox, "_INBOX.b%d", getpid());
    int link = greet(port, inbox);
    if (link < 0) { perror("connect"); return 1; }
    char *body = malloc(payload), *out = malloc(WRITE_BYTES + payload + 512), *in = malloc(READ_BYTES);
    for (int i = 0; i < payload; i++) body[i] = 'a' + i % 26;
    size_t filled = 0, written = 0, held = 0;
    double began = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    while (acked < messages) {
        if (written == filled) {
            filled = written = 0;
            for (; filled < WRITE_BYTES && sent < messages && sent - acked < window; sent++) {
                char head[96];
                int size = ids ? sprintf(head, "NATS/1.0\r\nNats-Msg-Id: c-19a2b3c4d5e-abcdef:%ld\r\n\r\n", sent) : 0;
                filled += ids ? sprintf(out + filled, "HPUB %s.%ld %s.%ld %d %d\r\n%s", word[6], sent % subjects, inbox,
                                        sent, size, size + payload, head)
                              : sprintf(out + filled, "PUB %s.%ld %s.%ld %d\r\n", word[6], sent % subjects, inbox, sent,
                                        payload);
                memcpy(out + filled, body, payload);
                memcpy(out + filled + payload, "\r\n", 2);
                filled += payload + 2;
            }
        }
        struct pollfd ready = {link, POLLIN | (written < filled ? POLLOUT : 0), 0};
        if (poll(&ready, 1, 10000) <= 0) { fprintf(stderr, "stalled at %ld of %ld\n", acked, messages); return 1; }
        if (ready.revents & POLLOUT) {
            ssize_t n = write(link, out + written, filled - written);
            if (n > 0) written += n;
        }
        if (!(ready.revents & POLLIN)) continue;
        ssize_t n = read(link, in + held, READ_BYTES - held);
        if (n == 0 || (n < 0 && errno != EAGAIN)) { fprintf(stderr, "the server closed the connection\n"); return 1; }
        if (n > 0) held += n;
        size_t at = 0;
        for (char *end; (end = memchr(in + at, '\n', held - at)); ) {
            size_t line = end - (in + at) + 1;
            if (!memcmp(in + at, "MSG ", 4)) {
                char *size = end - 1;
                while (size[-1] != ' ') size--;
                long bytes = atol(size);
                if (at + line + bytes + 2 > held) break;
                if (memmem(in + at + line, bytes, "\"error\"", 7)) refused++;
                acked++;
                line += bytes + 2;
            } else if (!memcmp(in + at, "HMSG", 4) || !memcmp(in + at, "-ERR", 4)) {
                fprintf(stderr, "%.*s", (int)line, in + at);
                return 1;
            } else if (!memcmp(in + at, "PING", 4)) {
                // at most once a run, and between writes: a PONG must not stand inside a message
                if (written == filled) dprintf(link, "PONG\r\n");
            }
            at += line;
        }
        memmove(in, in + at, held -= at);
    }
    printf("{\"seconds\":%.6f,\"cpu_s\":%.6f,\"refused\":%ld}\n", seconds(CLOCK_MONOTONIC) - began,
           seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu, refused);
    return refused != 0;
}
