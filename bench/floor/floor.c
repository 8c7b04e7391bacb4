// The floor: the least time in which this kernel takes given netlink messages.
//
//   floor xfrm|route|nft [--chunk B] [--no-yield]     serves: see below
//   floor xfrm|route --find-chunk [--prepare C] FILE… prints the best chunk for these files: {"chunk":B}
//
// It reads names of files from stdin, one a line, and answers each with a line of JSON once the kernel has taken the
// messages in it: {"messages":N,"sends":S,"chunk":B,"elapsedMs":T}, or {"error":"…"}, which ends it with status 1. A
// file holds whole netlink messages (struct nlmsghdr, padded to four bytes), as the harness records them from what
// xfrmesh sends. They are read, numbered and cut into sends before the clock starts: what is left is system calls.
//
// xfrm, route: B messages a send, the last of which asks for an ack, since the kernel answers a failed message whether
// asked or not. Between sends the CPU is given up (unless --no-yield), so that the kernel's work items can grow the
// hash tables. A request for a dump (NLM_F_DUMP) is a send of its own, and its answer is read to the end. nft: a send
// is a transaction, from NFNL_MSG_BATCH_BEGIN to NFNL_MSG_BATCH_END.
// --find-chunk tries chunks of 16 to 1024 messages, each in network namespaces of its own, and takes the fastest. What
// the messages are about and do not make themselves, a link, is made there before by the shell command C.
//
// needs: CAP_NET_ADMIN, and CAP_SYS_ADMIN for --find-chunk; for SAs a kernel with ESP and GCM
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { kReplyBytes = 65536, kLargestChunk = 1 << 20, kDefaultChunk = 256, kRoundsPerChunk = 5 };
enum { kSmallestBuffer = 4 << 20 };
static const int kChunks[] = {16, 32, 64, 128, 256, 512, 1024};
enum { kChunkCount = sizeof kChunks / sizeof *kChunks };

typedef struct {
  int protocol, chunk;
  bool yield;
} Options;

typedef struct {
  size_t begin, end;
  uint32_t acked;  // number of the message that asks for the ack, or for the dump
  bool dumps;
} Send;

typedef struct {
  char* bytes;
  size_t length;
  Send* sends;
  size_t send_count;
  uint32_t messages;
} Work;

static _Noreturn void die(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  printf("{\"error\":\"%s\"}\n", text);
  fflush(stdout);
  fprintf(stderr, "floor: %s\n", text);
  exit(1);
}

static void* allocate(size_t bytes) {
  void* memory = calloc(1, bytes ? bytes : 1);
  if (!memory) die("no memory for %zu bytes", bytes);
  return memory;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

// --- messages

static struct nlmsghdr* message_at(const Work* w, size_t at) {
  struct nlmsghdr* header = (struct nlmsghdr*)(w->bytes + at);
  if (w->length - at < sizeof *header || header->nlmsg_len < sizeof *header || header->nlmsg_len > w->length - at)
    die("the file is no sequence of netlink messages at byte %zu", at);
  return header;
}

static Work load(const char* path) {
  FILE* file = fopen(path, "rb");
  struct stat status;
  if (!file || fstat(fileno(file), &status)) die("%s: %s", path, strerror(errno));
  Work w = {.length = (size_t)status.st_size};
  w.bytes = allocate(w.length);
  if (fread(w.bytes, 1, w.length, file) != w.length) die("%s: it could not be read whole", path);
  fclose(file);
  for (size_t at = 0; at < w.length; at += NLMSG_ALIGN(message_at(&w, at)->nlmsg_len)) w.messages++;
  return w;
}

static bool begins(const struct nlmsghdr* header) { return header->nlmsg_type == NFNL_MSG_BATCH_BEGIN; }
static bool dumps(const struct nlmsghdr* header) {
  const bool gets = header->nlmsg_type == XFRM_MSG_GETSA || header->nlmsg_type == XFRM_MSG_GETPOLICY;
  return gets && (header->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
}
static bool ends(const struct nlmsghdr* header) { return header->nlmsg_type == NFNL_MSG_BATCH_END; }

// Of a send, by its last message; a dump says itself when it ends.
static void ask_ack(const Send* send, struct nlmsghdr* last) {
  if (send && last && !send->dumps) last->nlmsg_flags |= NLM_F_ACK;
}

// Numbers the messages and cuts them into sends.
static void cut(Work* w, const Options* o) {
  const bool transactions = o->protocol == NETLINK_NETFILTER;
  w->sends = allocate(w->messages * sizeof(Send));
  w->send_count = 0;
  Send* send = NULL;
  struct nlmsghdr* last = NULL;
  uint32_t number = 0, in_send = 0;
  for (size_t at = 0; at < w->length;) {
    struct nlmsghdr* header = message_at(w, at);
    const bool dump = o->protocol == NETLINK_XFRM && dumps(header);
    const bool fresh = transactions ? begins(header) : in_send == (uint32_t)o->chunk || dump || (send && send->dumps);
    if (!send || fresh) {
      ask_ack(send, last);
      send = &w->sends[w->send_count++];
      send->begin = at;
      send->dumps = dump;
      in_send = 0;
    }
    header->nlmsg_seq = number;
    header->nlmsg_flags = (uint16_t)(header->nlmsg_flags & ~NLM_F_ACK);
    in_send++;
    // Of a transaction the end itself is acked by newer kernels alone.
    if (!transactions || !ends(header)) {
      last = header;
      send->acked = number;
    }
    number++;
    at += NLMSG_ALIGN(header->nlmsg_len);
    send->end = at < w->length ? at : w->length;
  }
  ask_ack(send, last);
}

static size_t largest_send(const Work* w) {
  size_t most = 0;
  for (size_t i = 0; i < w->send_count; i++) {
    const size_t bytes = w->sends[i].end - w->sends[i].begin;
    if (bytes > most) most = bytes;
  }
  return most;
}

// --- the kernel

static void ask_buffer(int fd, int forced, int plain, int bytes) {
  if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof bytes)) setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof bytes);
}

static int open_socket(int protocol) {
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
  if (fd < 0) die("netlink: %s", strerror(errno));
  const int one = 1;
  ask_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, kSmallestBuffer);
  setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
  const struct sockaddr_nl any = {.nl_family = AF_NETLINK};
  if (bind(fd, (const struct sockaddr*)&any, sizeof any)) die("bind: %s", strerror(errno));
  return fd;
}

static char reply[kReplyBytes] __attribute__((aligned(NLMSG_ALIGNTO)));

// Reads up to the ack of message `last`, or to the end of the dump that it asked for.
static void await_ack(int fd, uint32_t last) {
  for (;;) {
    const ssize_t bytes = recv(fd, reply, sizeof reply, 0);
    if (bytes < 0) die("recv: %s", strerror(errno));
    int left = (int)bytes;
    for (struct nlmsghdr* h = (struct nlmsghdr*)reply; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
      if (h->nlmsg_type == NLMSG_DONE && h->nlmsg_seq == last) {
        const int error = -*(const int*)NLMSG_DATA(h);
        if (error) die("the dump ended early: %s", strerror(error));
        return;
      }
      if (h->nlmsg_type != NLMSG_ERROR) continue;
      const int error = -((const struct nlmsgerr*)NLMSG_DATA(h))->error;
      if (error) die("message %u was refused: %s", h->nlmsg_seq, strerror(error));
      if (h->nlmsg_seq == last) return;
    }
  }
}

// Milliseconds until the kernel has taken all of it.
static double carry_out(int fd, const Options* o, const Work* w) {
  const size_t most = largest_send(w);
  ask_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, most > kSmallestBuffer ? (int)most + 4096 : kSmallestBuffer);
  const double begin = now();
  for (size_t i = 0; i < w->send_count; i++) {
    const Send* s = &w->sends[i];
    if (o->yield) sched_yield();
    if (send(fd, w->bytes + s->begin, s->end - s->begin, 0) < 0)
      die("send of %zu bytes: %s", s->end - s->begin, strerror(errno));
    await_ack(fd, s->acked);
  }
  return now() - begin;
}

static void serve(const Options* o) {
  const int fd = open_socket(o->protocol);
  char path[4096];
  while (fgets(path, sizeof path, stdin)) {
    path[strcspn(path, "\n")] = '\0';
    Work w = load(path);
    cut(&w, o);
    const double elapsed = carry_out(fd, o, &w);
    printf("{\"messages\":%u,\"sends\":%zu,\"chunk\":%d,\"elapsedMs\":%.3f}\n", w.messages, w.send_count, o->chunk,
           elapsed);
    fflush(stdout);
    free(w.sends);
    free(w.bytes);
  }
}

// Rounds are interleaved, so that a slow moment of the machine does not fall on one chunk alone; the best round of each
// counts.
static int find_chunk(Options o, const char* prepare, char** paths, int count) {
  double best[kChunkCount];
  int fastest = 0;
  for (int round = 0; round < kRoundsPerChunk; round++)
    for (int c = 0; c < kChunkCount; c++) {
      o.chunk = kChunks[c];
      if (unshare(CLONE_NEWNET)) die("a network namespace: %s", strerror(errno));
      if (prepare && system(prepare)) die("it could not be prepared");
      const int fd = open_socket(o.protocol);
      double total = 0;
      for (int i = 0; i < count; i++) {
        Work w = load(paths[i]);
        cut(&w, &o);
        total += carry_out(fd, &o, &w);
        free(w.sends);
        free(w.bytes);
      }
      close(fd);
      if (round == 0 || total < best[c]) best[c] = total;
    }
  for (int c = 1; c < kChunkCount; c++)
    if (best[c] < best[fastest]) fastest = c;
  return kChunks[fastest];
}

static _Noreturn void usage(void) {
  fprintf(stderr,
          "usage: floor xfrm|route|nft [--chunk B] [--no-yield]\n"
          "       floor xfrm|route --find-chunk [--prepare COMMAND] FILE…\n"
          "  B from 1 to %d (%d if not given)\n",
          kLargestChunk, kDefaultChunk);
  exit(2);
}

static int number(const char* text, long most) {
  char* end;
  errno = 0;
  const long value = strtol(text, &end, 10);
  if (errno || *text == '\0' || *end != '\0' || value < 1 || value > most) usage();
  return (int)value;
}

int main(int argc, char** argv) {
  Options o = {.yield = true, .chunk = kDefaultChunk};
  bool find = false;
  const char* prepare = NULL;
  const struct option options[] = {{"chunk", required_argument, NULL, 'c'},
                                   {"no-yield", no_argument, NULL, 'n'},
                                   {"find-chunk", no_argument, NULL, 'f'},
                                   {"prepare", required_argument, NULL, 'p'},
                                   {0}};
  for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    if (option == 'c')
      o.chunk = number(optarg, kLargestChunk);
    else if (option == 'n')
      o.yield = false;
    else if (option == 'f')
      find = true;
    else if (option == 'p')
      prepare = optarg;
    else
      usage();
  }
  if (optind == argc) usage();
  const char* protocol = argv[optind++];
  if (strcmp(protocol, "xfrm") == 0)
    o.protocol = NETLINK_XFRM;
  else if (strcmp(protocol, "route") == 0)
    o.protocol = NETLINK_ROUTE;
  else if (strcmp(protocol, "nft") == 0)
    o.protocol = NETLINK_NETFILTER;
  else
    usage();
  if (find != (optind < argc) || (prepare && !find) || (find && o.protocol == NETLINK_NETFILTER)) usage();
  if (find)
    printf("{\"chunk\":%d}\n", find_chunk(o, prepare, argv + optind, argc - optind));
  else
    serve(&o);
  return 0;
}
