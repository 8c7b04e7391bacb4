// The floor: the least time in which this kernel takes N XFRM operations, IPv4.
//
//   floor sa|sp N [--chunk B] [--no-yield] [--find-chunk] [--json]
//
// sa adds and deletes N SAs, sp adds, updates and deletes N policies; four SAs, three inbound and one outbound, make a
// peer. All messages are built before the clock starts and sent B at a time. Only the last of a chunk asks for an ack,
// since the kernel answers a failed message whether asked or not. Between chunks the CPU is given up (unless
// --no-yield), so that the kernel's work items can grow the hash tables. --find-chunk tries chunks of 64 to 1024
// messages and takes the fastest. Every run has a network namespace of its own, so nothing else is touched and each
// starts with tables of the initial size. A refused message, or a count (GETSADINFO, GETSPDINFO) that did not change by
// N, ends the program with status 1.
//
// needs: CAP_SYS_ADMIN and CAP_NET_ADMIN (root, or unshare -Ur); for sa a kernel with ESP and GCM
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { kMark = 0xD0C4E3, kVxlanPort = 4789, kKeyBytes = 20, kIcvBits = 64, kLargestMessage = 512, kReplyBytes = 65536 };
static const uint32_t kLocal = 0x0a640001;      // 10.100.0.1
static const uint32_t kFirstPeer = 0x0b000001;  // 11.0.0.1
static const uint32_t kPeers = 1u << 24;
static const int kChunks[] = {64, 128, 256, 512, 1024};
enum { kChunkCount = sizeof kChunks / sizeof *kChunks, kRoundsPerChunk = 3, kLargestChunk = 1024 };

typedef enum { kAdd, kUpdate, kDelete } Operation;
static const char* const kOperationNames[] = {"add", "update", "delete"};

typedef struct {
  bool policies, yield, json;
  int count, chunk;
} Options;

// Messages in the order of sending; message i starts at start[i], and start[count] is the end.
typedef struct {
  char* bytes;
  size_t* start;
} Messages;

typedef struct {
  double seconds[3];  // by Operation
} Times;

static _Noreturn void die(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("floor: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(1);
}

static void* allocate(size_t bytes) {
  void* memory = calloc(1, bytes);
  if (!memory) die("no memory for %zu bytes", bytes);
  return memory;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

// --- messages: memory is zeroed by the caller

static struct nlmsghdr* message(char* at, int type, int flags, size_t body) {
  struct nlmsghdr* header = (struct nlmsghdr*)at;
  header->nlmsg_len = (uint32_t)NLMSG_SPACE(body);
  header->nlmsg_type = (uint16_t)type;
  header->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
  return header;
}

static void attribute(struct nlmsghdr* header, int type, const void* value, size_t bytes) {
  struct nlattr* head = (struct nlattr*)((char*)header + header->nlmsg_len);
  head->nla_type = (uint16_t)type;
  head->nla_len = (uint16_t)(NLA_HDRLEN + bytes);
  memcpy((char*)head + NLA_HDRLEN, value, bytes);
  header->nlmsg_len += (uint32_t)NLA_ALIGN(head->nla_len);
}

static struct xfrm_lifetime_cfg unlimited(void) {
  return (struct xfrm_lifetime_cfg){.soft_byte_limit = XFRM_INF,
                                    .hard_byte_limit = XFRM_INF,
                                    .soft_packet_limit = XFRM_INF,
                                    .hard_packet_limit = XFRM_INF};
}

// A multiplication by an odd number: SPIs that differ, spread like the hashes that real ones are.
static uint32_t spi_of(int i) { return htonl(((uint32_t)i + 1) * 2654435761u); }

static struct nlmsghdr* state(char* at, int i, Operation operation) {
  const uint32_t local = htonl(kLocal), peer = htonl(kFirstPeer + (uint32_t)i / 4);
  const bool outbound = i % 4 == 0;
  if (operation == kDelete) {
    struct nlmsghdr* header = message(at, XFRM_MSG_DELSA, 0, sizeof(struct xfrm_usersa_id));
    struct xfrm_usersa_id* id = NLMSG_DATA(header);
    *id = (struct xfrm_usersa_id){.spi = spi_of(i), .family = AF_INET, .proto = IPPROTO_ESP};
    id->daddr.a4 = outbound ? peer : local;
    return header;
  }
  struct nlmsghdr* header = message(at, XFRM_MSG_NEWSA, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct xfrm_usersa_info));
  struct xfrm_usersa_info* info = NLMSG_DATA(header);
  *info = (struct xfrm_usersa_info){.family = AF_INET, .reqid = kMark, .mode = XFRM_MODE_TRANSPORT, .lft = unlimited()};
  info->id.spi = spi_of(i);
  info->id.proto = IPPROTO_ESP;
  info->id.daddr.a4 = outbound ? peer : local;
  info->saddr.a4 = outbound ? local : peer;
  char algorithm[sizeof(struct xfrm_algo_aead) + kKeyBytes] = {0};
  struct xfrm_algo_aead* aead = (struct xfrm_algo_aead*)algorithm;
  strcpy(aead->alg_name, "rfc4106(gcm(aes))");
  aead->alg_key_len = kKeyBytes * 8;
  aead->alg_icv_len = kIcvBits;
  memcpy(aead->alg_key, &info->id.spi, sizeof info->id.spi);
  attribute(header, XFRMA_ALG_AEAD, algorithm, sizeof algorithm);
  return header;
}

static struct nlmsghdr* policy(char* at, int i, Operation operation) {
  const uint32_t local = htonl(kLocal), peer = htonl(kFirstPeer + (uint32_t)i);
  const struct xfrm_mark mark = {kMark, UINT32_MAX};
  struct xfrm_selector selector = {.family = AF_INET,
                                   .prefixlen_d = 32,
                                   .prefixlen_s = 32,
                                   .proto = IPPROTO_UDP,
                                   .dport = htons(kVxlanPort),
                                   .dport_mask = UINT16_MAX};
  selector.saddr.a4 = local;
  selector.daddr.a4 = peer;
  if (operation == kDelete) {
    struct nlmsghdr* header = message(at, XFRM_MSG_DELPOLICY, 0, sizeof(struct xfrm_userpolicy_id));
    *(struct xfrm_userpolicy_id*)NLMSG_DATA(header) =
        (struct xfrm_userpolicy_id){.sel = selector, .dir = XFRM_POLICY_OUT};
    attribute(header, XFRMA_MARK, &mark, sizeof mark);
    return header;
  }
  struct nlmsghdr* header = operation == kAdd ? message(at, XFRM_MSG_NEWPOLICY, NLM_F_CREATE | NLM_F_EXCL,
                                                        sizeof(struct xfrm_userpolicy_info))
                                              : message(at, XFRM_MSG_UPDPOLICY, 0, sizeof(struct xfrm_userpolicy_info));
  *(struct xfrm_userpolicy_info*)NLMSG_DATA(header) =
      (struct xfrm_userpolicy_info){.sel = selector, .lft = unlimited(), .dir = XFRM_POLICY_OUT};
  struct xfrm_user_tmpl template = {.family = AF_INET,
                                    .reqid = kMark,
                                    .mode = XFRM_MODE_TRANSPORT,
                                    .aalgos = UINT32_MAX,
                                    .ealgos = UINT32_MAX,
                                    .calgos = UINT32_MAX};
  template.id.proto = IPPROTO_ESP;
  template.id.spi = spi_of(operation == kUpdate ? ~i : i);
  template.id.daddr.a4 = peer;
  template.saddr.a4 = local;
  attribute(header, XFRMA_TMPL, &template, sizeof template);
  attribute(header, XFRMA_MARK, &mark, sizeof mark);
  return header;
}

static bool ends_chunk(const Options* o, int i) { return i % o->chunk == o->chunk - 1 || i == o->count - 1; }

static Messages build(const Options* o, Operation operation) {
  Messages m = {allocate((size_t)o->count * kLargestMessage), allocate(((size_t)o->count + 1) * sizeof(size_t))};
  size_t end = 0;
  for (int i = 0; i < o->count; i++) {
    m.start[i] = end;
    struct nlmsghdr* header = (o->policies ? policy : state)(m.bytes + end, i, operation);
    header->nlmsg_seq = (uint32_t)i;
    if (ends_chunk(o, i)) header->nlmsg_flags |= NLM_F_ACK;
    end += NLMSG_ALIGN(header->nlmsg_len);
  }
  m.start[o->count] = end;
  return m;
}

// --- the kernel

static int open_socket(void) {
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_XFRM);
  if (fd < 0) die("NETLINK_XFRM: %s", strerror(errno));
  const int one = 1, bytes = 4 << 20;
  if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes))
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes))
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
  setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
  const struct sockaddr_nl any = {.nl_family = AF_NETLINK};
  if (bind(fd, (const struct sockaddr*)&any, sizeof any)) die("bind: %s", strerror(errno));
  return fd;
}

static char reply[kReplyBytes] __attribute__((aligned(NLMSG_ALIGNTO)));

static int receive(int fd) {
  const ssize_t bytes = recv(fd, reply, sizeof reply, 0);
  if (bytes < 0) die("recv: %s", strerror(errno));
  return (int)bytes;
}

static void transmit(int fd, const void* bytes, size_t length) {
  if (send(fd, bytes, length, 0) < 0)
    die("send of %zu bytes: %s%s", length, strerror(errno),
        errno == EMSGSIZE ? " (raise net.core.wmem_max, or take a smaller chunk)" : "");
}

// Reads up to the ack of message `last`.
static void await_ack(int fd, uint32_t last) {
  for (;;) {
    int left = receive(fd);
    for (struct nlmsghdr* h = (struct nlmsghdr*)reply; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
      if (h->nlmsg_type != NLMSG_ERROR) continue;
      const int error = -((const struct nlmsgerr*)NLMSG_DATA(h))->error;
      if (error) die("message %u was refused: %s", h->nlmsg_seq, strerror(error));
      if (h->nlmsg_seq == last) return;
    }
  }
}

// The number of SAs, or of policies of all directions, in the socket's namespace.
static uint32_t count_objects(int fd, bool policies) {
  uint32_t request[(NLMSG_HDRLEN + sizeof(uint32_t)) / sizeof(uint32_t)] = {0};
  struct nlmsghdr* header =
      message((char*)request, policies ? XFRM_MSG_GETSPDINFO : XFRM_MSG_GETSADINFO, 0, sizeof(uint32_t));
  *(uint32_t*)NLMSG_DATA(header) = UINT32_MAX;
  transmit(fd, request, header->nlmsg_len);
  const int bytes = receive(fd);
  const struct nlmsghdr* answer = (const struct nlmsghdr*)reply;
  const int wanted = policies ? XFRM_MSG_NEWSPDINFO : XFRM_MSG_NEWSADINFO,
            attributes = (int)NLMSG_SPACE(sizeof(uint32_t));
  if (!NLMSG_OK(answer, bytes) || answer->nlmsg_type != wanted) die("the kernel did not tell its count");
  for (int at = attributes; at + NLA_HDRLEN <= (int)answer->nlmsg_len;) {
    const struct nlattr* a = (const struct nlattr*)(reply + at);
    const void* value = (const char*)a + NLA_HDRLEN;
    if (a->nla_len < NLA_HDRLEN || at + a->nla_len > (int)answer->nlmsg_len) break;
    if (!policies && a->nla_type == XFRMA_SAD_CNT) return *(const uint32_t*)value;
    if (policies && a->nla_type == XFRMA_SPD_INFO) {
      const struct xfrmu_spdinfo* info = value;
      return info->incnt + info->outcnt + info->fwdcnt;
    }
    at += NLA_ALIGN(a->nla_len);
  }
  die("the kernel's answer holds no count");
}

static double commit(int fd, const Options* o, const Messages* m) {
  const double begin = now();
  for (int first = 0; first < o->count; first += o->chunk) {
    const int end = first + o->chunk < o->count ? first + o->chunk : o->count;
    if (o->yield) sched_yield();
    transmit(fd, m->bytes + m->start[first], m->start[end] - m->start[first]);
    await_ack(fd, (uint32_t)end - 1);
  }
  return now() - begin;
}

static Times run(const Options* o) {
  if (unshare(CLONE_NEWNET)) die("a network namespace: %s", strerror(errno));
  const int fd = open_socket();
  Times times = {{0}};
  const int64_t change[] = {[kAdd] = o->count, [kUpdate] = 0, [kDelete] = -(int64_t)o->count};
  for (Operation operation = kAdd; operation <= kDelete; operation++) {
    if (operation == kUpdate && !o->policies) continue;
    Messages m = build(o, operation);
    const int64_t before = count_objects(fd, o->policies);
    times.seconds[operation] = commit(fd, o, &m);
    const int64_t after = count_objects(fd, o->policies);
    if (after - before != change[operation])
      die("%s: the kernel's count went from %lld to %lld", kOperationNames[operation], (long long)before,
          (long long)after);
    free(m.bytes);
    free(m.start);
  }
  close(fd);
  return times;
}

// Rounds are interleaved, so that a slow moment of the machine does not fall on one chunk alone; the best round of each
// counts.
static int find_chunk(Options o) {
  double best[kChunkCount];
  int fastest = 0;
  for (int round = 0; round < kRoundsPerChunk; round++)
    for (int c = 0; c < kChunkCount; c++) {
      o.chunk = kChunks[c];
      const Times t = run(&o);
      const double total = t.seconds[kAdd] + t.seconds[kUpdate] + t.seconds[kDelete];
      if (round == 0 || total < best[c]) best[c] = total;
    }
  for (int c = 1; c < kChunkCount; c++)
    if (best[c] < best[fastest]) fastest = c;
  return kChunks[fastest];
}

static void print(const Options* o, const Times* t) {
  const char* separator = "";
  if (o->json)
    printf("{\"objects\":\"%s\",\"count\":%d,\"chunk\":%d,\"yield\":%s,\"runs\":[", o->policies ? "sp" : "sa", o->count,
           o->chunk, o->yield ? "true" : "false");
  for (Operation operation = kAdd; operation <= kDelete; operation++) {
    if (operation == kUpdate && !o->policies) continue;
    const double ms = t->seconds[operation] * 1e3, each = t->seconds[operation] * 1e6 / o->count;
    if (o->json)
      printf("%s{\"operation\":\"%s\",\"elapsedMs\":%.3f,\"microsecondsEach\":%.3f}", separator,
             kOperationNames[operation], ms, each);
    else
      printf("%s %-6s %9d  chunk %4d%s  %10.1f ms  %7.2f us each\n", o->policies ? "sp" : "sa",
             kOperationNames[operation], o->count, o->chunk, o->yield ? "" : " without yield", ms, each);
    separator = ",";
  }
  if (o->json) puts("]}");
}

static _Noreturn void usage(void) {
  fprintf(stderr,
          "usage: floor sa|sp N [--chunk B] [--no-yield] [--find-chunk] [--json]\n"
          "  N from 1 to %u, B from 1 to %d (256 if not given)\n",
          kPeers, kLargestChunk);
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
  Options o = {.yield = true, .chunk = 256};
  bool find = false;
  const struct option options[] = {{"chunk", required_argument, NULL, 'c'},
                                   {"no-yield", no_argument, NULL, 'n'},
                                   {"find-chunk", no_argument, NULL, 'f'},
                                   {"json", no_argument, NULL, 'j'},
                                   {0}};
  for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) switch (option) {
      case 'c':
        o.chunk = number(optarg, kLargestChunk);
        break;
      case 'n':
        o.yield = false;
        break;
      case 'f':
        find = true;
        break;
      case 'j':
        o.json = true;
        break;
      default:
        usage();
    }
  if (argc - optind != 2 || (strcmp(argv[optind], "sa") && strcmp(argv[optind], "sp"))) usage();
  o.policies = !strcmp(argv[optind], "sp");
  o.count = number(argv[optind + 1], kPeers);
  if (find) o.chunk = find_chunk(o);
  const Times times = run(&o);
  print(&o, &times);
}
