/* A provider that costs next to nothing: what is measured is what stands in front of it.
 *
 *   stub PORT json FILE            answers every request with the file, once its body is read
 *   stub PORT stream EVENTS GAP_US answers every POST with a paced stream of chat chunks; each
 *                                  tells the monotonic time, in ns, at which it was sent
 *
 * One thread, epoll, keep-alive; request bodies with a length or in chunks. Loopback only; it
 * trusts its clients and is no server for anything else.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD, LENGTH, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, STREAMING };

typedef struct conn {
  int fd, state, post, last_chunk, line;
  long left;             /* bytes of body, or of the chunk */
  long size;             /* chunk size while it is read; -1 before its first digit is */
  char head[65536];
  int have;
  char *out;             /* what the socket has not taken */
  size_t out_len;
  long events;           /* still to be sent */
  long long due_ns;
  struct conn *next, *prev;
} conn;

static int epfd;
static char *answer;
static size_t answer_len;
static int streams;
static long stream_events, gap_ns;
static conn *pacing; /* list of connections that stream */

static long long now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void unpace(conn *c) {
  if (c->state != STREAMING) return;
  if (c->prev) c->prev->next = c->next; else pacing = c->next;
  if (c->next) c->next->prev = c->prev;
  c->next = c->prev = NULL;
}

static void drop(conn *c) {
  unpace(c);
  close(c->fd);
  free(c->out);
  free(c);
}

static int put(conn *c, const char *data, size_t len) {
  if (!c->out_len) {
    ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) return -1;
    if (n > 0) { data += n; len -= n; }
    if (!len) return 0;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    epoll_ctl(epfd, EPOLL_CTL_MOD, c->fd, &e);
  }
  char *grown = realloc(c->out, c->out_len + len);
  if (!grown) return -1;
  c->out = grown;
  memcpy(c->out + c->out_len, data, len);
  c->out_len += len;
  return 0;
}

static int flush(conn *c) {
  if (!c->out_len) return 0;
  ssize_t n = send(c->fd, c->out, c->out_len, MSG_NOSIGNAL);
  if (n < 0) return errno == EAGAIN ? 0 : -1;
  memmove(c->out, c->out + n, c->out_len - n);
  c->out_len -= n;
  if (!c->out_len) {
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epfd, EPOLL_CTL_MOD, c->fd, &e);
  }
  return 0;
}

static int send_event(conn *c) {
  char body[512], framed[640];
  int n;
  if (c->events > 1)
    n = snprintf(body, sizeof body,
      "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,"
      "\"model\":\"gpt-5.6\",\"choices\":[{\"index\":0,\"delta\":{%s\"content\":\"%lld \"},"
      "\"finish_reason\":null}]}\n\n",
      c->events == stream_events ? "\"role\":\"assistant\"," : "", now_ns());
  else
    n = snprintf(body, sizeof body,
      "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,"
      "\"model\":\"gpt-5.6\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
      "data: [DONE]\n\n");
  int m = snprintf(framed, sizeof framed, "%x\r\n%.*s\r\n%s", n, n, body,
                   c->events == 1 ? "0\r\n\r\n" : "");
  c->events--;
  return put(c, framed, m);
}

static int respond(conn *c) {
  if (!streams || !c->post) {
    c->state = HEAD;
    return put(c, answer, answer_len);
  }
  static const char head[] =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    "transfer-encoding: chunked\r\n\r\n";
  if (put(c, head, sizeof head - 1)) return -1;
  c->state = STREAMING;
  c->events = stream_events;
  c->due_ns = now_ns();
  c->prev = NULL;
  c->next = pacing;
  if (pacing) pacing->prev = c;
  pacing = c;
  return 0;
}

/* The head ends at `end`: find out how its body is framed. */
static int framed(conn *c, char *end) {
  long length = 0;
  int chunked = 0, expects = 0;
  *end = 0;
  c->post = !strncmp(c->head, "POST ", 5);
  for (char *line = strstr(c->head, "\r\n"); line; line = strstr(line, "\r\n")) {
    line += 2;
    if (!strncasecmp(line, "content-length:", 15)) length = atol(line + 15);
    else if (!strncasecmp(line, "transfer-encoding:", 18)) chunked = 1;
    else if (!strncasecmp(line, "expect:", 7)) expects = 1;
  }
  if (expects && put(c, "HTTP/1.1 100 Continue\r\n\r\n", 25)) return -1;
  c->left = length;
  c->size = c->last_chunk = 0;
  c->state = chunked ? CHUNK_SIZE : LENGTH;
  return !chunked && !length ? respond(c) : 0;
}

/* Take in what came; a request may be in pieces, and a piece may hold more than one. */
static int take(conn *c, char *data, long len) {
  while (len > 0) {
    if (c->state == HEAD) {
      int room = (int)sizeof c->head - 1 - c->have;
      int n = len < room ? (int)len : room;
      if (!n) return -1;
      int from = c->have > 3 ? c->have - 3 : 0;
      memcpy(c->head + c->have, data, n);
      c->have += n;
      char *end = memmem(c->head + from, c->have - from, "\r\n\r\n", 4);
      if (!end) { data += n; len -= n; continue; }
      int used = (int)(end + 4 - c->head) - (c->have - n);
      c->have = 0;
      data += used; len -= used;
      if (framed(c, end)) return -1;
    } else if (c->state == LENGTH || c->state == CHUNK_DATA) {
      long n = len < c->left ? len : c->left;
      c->left -= n; data += n; len -= n;
      if (!c->left) {
        if (c->state == LENGTH) { if (respond(c)) return -1; }
        else { c->state = CHUNK_END; c->left = 2; }
      }
    } else if (c->state == CHUNK_END) {
      data++; len--;
      if (!--c->left) { c->state = CHUNK_SIZE; c->size = 0; }
    } else if (c->state == CHUNK_SIZE) {
      char b = *data++; len--;
      if (b >= '0' && b <= '9') c->size = c->size * 16 + b - '0';
      else if ((b | 32) >= 'a' && (b | 32) <= 'f') c->size = c->size * 16 + (b | 32) - 'a' + 10;
      else if (b == '\n') {
        if (c->size) { c->state = CHUNK_DATA; c->left = c->size; }
        else { c->state = TRAILER; c->line = 0; }
      }
    } else if (c->state == TRAILER) {
      char b = *data++; len--;
      if (b == '\n') {
        if (!c->line) { if (respond(c)) return -1; }
        c->line = 0;
      } else if (b != '\r') c->line++;
    } else return -1; /* pipelined behind a stream: nobody does that */
  }
  return 0;
}

static int pace(void) { /* returns the time until the next event is due, in ms; -1 for never */
  long long now = now_ns(), next = -1;
  for (conn *c = pacing, *after; c; c = after) {
    after = c->next;
    if (c->due_ns <= now) {
      int failed = send_event(c);
      c->due_ns += gap_ns;
      if (!failed && !c->events) { unpace(c); c->state = HEAD; continue; }
      if (failed) { drop(c); continue; }
    }
    if (next < 0 || c->due_ns < next) next = c->due_ns;
  }
  if (next < 0) return -1;
  return next <= now ? 0 : (int)((next - now + 999999) / 1000000);
}

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  if (argc < 4) return 2;
  streams = !strcmp(argv[2], "stream");
  if (streams) {
    stream_events = atol(argv[3]);
    gap_ns = (argc > 4 ? atol(argv[4]) : 0) * 1000;
    answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    answer_len = strlen(answer);
  } else {
    FILE *f = fopen(argv[3], "rb");
    if (!f) return 1;
    static char body[1 << 20];
    size_t n = fread(body, 1, sizeof body, f);
    answer = malloc(n + 256);
    answer_len = sprintf(answer, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                         "x-request-id: req_bench\r\ncontent-length: %zu\r\n\r\n", n);
    memcpy(answer + answer_len, body, n);
    answer_len += n;
  }
  int one = 1, l = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])),
                          .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(l, (void *)&a, sizeof a) || listen(l, 1024)) return perror("stub"), 1;
  epfd = epoll_create1(0);
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, got[256];
  epoll_ctl(epfd, EPOLL_CTL_ADD, l, &e);
  static char in[1 << 18];
  for (;;) {
    int n = epoll_wait(epfd, got, 256, pace());
    for (int i = 0; i < n; i++) {
      conn *c = got[i].data.ptr;
      if (!c) {
        int fd;
        while ((fd = accept4(l, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
          setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
          c = calloc(1, sizeof *c);
          c->fd = fd;
          struct epoll_event ce = {.events = EPOLLIN, .data.ptr = c};
          epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ce);
        }
        continue;
      }
      if ((got[i].events & EPOLLOUT) && flush(c)) { drop(c); continue; }
      if (!(got[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) continue;
      ssize_t k = recv(c->fd, in, sizeof in, 0);
      if (k < 0 && errno == EAGAIN) continue;
      if (k <= 0 || take(c, in, k)) drop(c);
    }
  }
}
